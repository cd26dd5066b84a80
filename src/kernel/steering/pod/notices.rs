//! What the programs in the kernel tell of a pod, and what its network tells of its addresses.

use std::time::{Duration, Instant};

use super::Pod;
use crate::kernel::{
    KernelError,
    host::Host,
    netns,
    raw::{NOTICE_BOUND, NOTICE_EXCLUSIVE, NOTICE_LISTENS, NOTICE_OTHER_USER, Notice},
    sockets::Transport,
    steering::{
        pace::Allowance,
        project::Life,
        wish::{self, OtherUser},
    },
};

/// So many requests of replicas that are not known yet are remembered.
const MOST_EARLY: usize = 64;

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notices {
    /// Nothing.
    None,
    /// Something that is to be looked at some time soon.
    Some,
    /// Somebody listens on a declared port, who has not done so too often.
    Urgent,
}

impl Pod {
    /// Takes note of what the programs and the network have told.
    pub fn heed_notices(&mut self, host: &Host) -> Notices {
        let mut told = Notices::None;
        while let Some(notice) = self.kernel.next_notice() {
            told = told.max(Notices::Some);
            match notice.kind {
                NOTICE_OTHER_USER => self.other_user(host, &notice),
                NOTICE_EXCLUSIVE => self.exclusive_conflict(&notice),
                NOTICE_LISTENS | NOTICE_BOUND if self.is_urgent(&notice) => told = Notices::Urgent,
                _ => {}
            }
        }
        if self.addresses.has_changed() {
            self.addresses_changed = true;
            told = told.max(Notices::Some);
        }
        told
    }

    /// Whether it cannot wait. A replica that listens again and again uses up its own allowance, and no other's.
    fn is_urgent(&mut self, notice: &Notice) -> bool {
        if !port_of(notice).is_some_and(|port| self.is_declared(port)) {
            return false;
        }
        let (payer, now) = (self.payer(notice.cgroup), Instant::now());
        let is_urgent = !self.allowance(payer.as_ref()).is_some_and(|allowance| allowance.is_spent(now));
        if is_urgent {
            self.payers.insert(payer);
        }
        is_urgent
    }

    /// Whose allowance is used by what a control group does; none: it is not known whose it is.
    fn payer(&self, cgroup: u64) -> Option<Life> {
        let mut residents = self.residents.iter();
        residents.find(|(_, resident)| resident.ids.contains(&cgroup)).map(|(life, _)| life.clone())
    }

    fn allowance(&mut self, payer: Option<&Life>) -> Option<&mut Allowance> {
        match payer {
            Some(life) => self.residents.get_mut(life).map(|resident| &mut resident.allowance),
            None => Some(&mut self.unknown_allowance),
        }
    }

    /// A look has taken so long: those pay who could not wait for it.
    pub fn charge(&mut self, took: Duration, now: Instant) {
        for payer in std::mem::take(&mut self.payers) {
            if let Some(allowance) = self.allowance(payer.as_ref()) {
                allowance.charge(took, now);
            }
        }
    }

    fn exclusive_conflict(&mut self, notice: &Notice) {
        let Some(port) = port_of(notice) else { return };
        if let Some(life) = self.payer(notice.cgroup) {
            self.exclusive_conflicts.entry(life.id).or_default().insert(port);
        } else {
            self.early_conflicts.truncate(MOST_EARLY - 1);
            self.early_conflicts.insert(0, (notice.cgroup, port));
        }
    }

    fn other_user(&mut self, host: &Host, notice: &Notice) {
        let Some((transport, port)) = port_of(notice) else { return };
        if let Some(owner) = host.maps.user(&self.host_key((transport, port))) {
            self.other_users.insert(port, OtherUser { port, user: notice.user, owner });
        }
        // Where nobody else has the port any more, our own listener makes room for the new user.
        if let Some(port) = self.ports.get_mut(&(transport, port))
            && port.is_empty()
        {
            for group in port.groups.iter_mut().flatten() {
                if let Some(hold) = &group.hold
                    && let Err(error) = hold.belong_to(notice.user)
                {
                    tracing::warn!(%error, "a port stays with the user who had it");
                }
                group.user = notice.user;
            }
        }
    }

    /// Takes note of the addresses of the network.
    ///
    /// # Errors
    /// When they cannot be listed or entered.
    pub(super) fn look_at_addresses(&mut self, host: &mut Host) -> Result<(), KernelError> {
        self.addresses_changed = false;
        let addresses = self.netns.within(netns::addresses);
        // They are still to be looked at if that fails.
        addresses
            .and_then(|addresses| host.maps.set_local(self.kernel.netns, &addresses))
            .inspect_err(|_| self.addresses_changed = true)
    }
}

fn port_of(notice: &Notice) -> Option<wish::Port> {
    let transport = Transport::from_number(u8::try_from(notice.protocol).ok()?)?;
    Some((transport, u16::try_from(notice.port).ok()?))
}
