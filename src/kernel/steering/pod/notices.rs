//! What the programs in the kernel tell of a pod, and what its network tells of its addresses.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{NextLook, Pod, key, report::STRANGE, sockets::YOUNG};
use crate::engine::ContainerId;
use crate::kernel::{
    KernelError,
    host::Host,
    netns,
    raw::{
        NOTICE_BOUND, NOTICE_CHOOSES, NOTICE_CLOSED, NOTICE_EXCLUSIVE, NOTICE_LISTENS, NOTICE_OTHER_USER,
        Notice,
    },
    replica_addr,
    sockets::{Row, Transport},
    steering::{config, pace::Allowance, project::Life},
};

/// So many control groups are remembered that have tried to choose who gets connections.
const MOST_CHOOSERS: usize = 1024;
/// So many requests of replicas that are not known yet are remembered.
pub(super) const MOST_EARLY: usize = 64;

impl Pod {
    /// Takes note of what the programs and the network have told. Returns when it is to be looked at.
    pub fn heed_notices(&mut self, host: &mut Host) -> NextLook {
        let (now, mut next, mut last) = (Instant::now(), NextLook::default(), None);
        while let Some(notice) = self.kernel.next_notice() {
            next.ordinary = Some(now);
            // A replica may have the same told thousands of times.
            if notice.kind == NOTICE_CLOSED || last.replace(notice) == Some(notice) {
                continue;
            }
            match notice.kind {
                NOTICE_OTHER_USER => self.asks(host, &notice, now),
                NOTICE_EXCLUSIVE => self.exclusive_conflict(&notice),
                NOTICE_CHOOSES => self.chooses(&notice, now),
                NOTICE_LISTENS | NOTICE_BOUND if self.cannot_wait(&notice, now) => {
                    next.urgent = Some(now + YOUNG);
                }
                _ => {}
            }
        }
        if self.addresses.has_changed() {
            self.addresses_changed = true;
            next.ordinary = Some(now);
        }
        if self.turns.is_empty() { next } else { next.or(self.take_turns(host)) }
    }

    /// Whether somebody listens on a declared port, who has not done so too often: a replica that does it again and again uses
    /// up its own allowance, and no other's.
    fn cannot_wait(&mut self, notice: &Notice, now: Instant) -> bool {
        let Some(port) = port_of(notice).filter(|port| self.is_declared(*port)) else { return false };
        self.told.insert((notice.cgroup, port), now);
        self.may_hurry(self.payer(notice.cgroup).as_ref(), now)
    }

    /// When a socket began to listen, as far as it was told since the last look.
    pub(super) fn told_at(&self, row: &Row) -> Option<Instant> {
        let port = key(&row.bound);
        // Of UDP it is not told whose it is.
        let group = if row.bound.transport == Transport::Udp { 0 } else { row.cgroup? };
        self.told.get(&(group, port)).copied()
    }

    /// Whether somebody has an allowance left for a look that does not wait; then he pays for the next one.
    pub(super) fn may_hurry(&mut self, payer: Option<&Life>, now: Instant) -> bool {
        let may = !self.allowance(payer).is_some_and(|allowance| allowance.is_spent(now));
        if may {
            self.payers.insert(payer.cloned());
        }
        may
    }

    /// Whose allowance is used by what a control group does; none: it is not known whose it is.
    pub(super) fn payer(&self, cgroup: u64) -> Option<Life> {
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
        for payer in std::mem::take(&mut self.paying) {
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

    fn chooses(&mut self, notice: &Notice, now: Instant) {
        if self.choosers.len() >= MOST_CHOOSERS && !self.choosers.contains_key(&notice.cgroup) {
            return;
        }
        if let Some(port) = port_of(notice) {
            self.choosers.entry(notice.cgroup).or_insert((port, now));
        }
    }

    /// Who has tried to choose: it may be a replica that we are told of only later.
    pub(super) fn ignored_programs(&self) -> BTreeMap<Option<ContainerId>, config::Port> {
        let told = self.choosers.iter().filter_map(|(cgroup, (port, since))| match self.payer(*cgroup) {
            Some(life) => Some((Some(life.id), *port)),
            None => (since.elapsed() > STRANGE).then_some((None, *port)),
        });
        told.collect()
    }

    /// Takes note of the addresses of the network.
    ///
    /// # Errors
    /// When they cannot be listed or entered.
    pub(super) fn look_at_addresses(&mut self, host: &mut Host) -> Result<(), KernelError> {
        self.addresses_changed = false;
        let addresses = self.netns.within(|| {
            if let Err(error) = replica_addr::make_local() {
                tracing::warn!(%error, "replicas have no IPv6 addresses of their own");
            }
            netns::addresses()
        });
        // They are still to be looked at if that fails.
        addresses
            .and_then(|addresses| {
                self.lost_addresses.note(&addresses, Instant::now());
                host.maps.set_local(self.kernel.netns, &addresses)
            })
            .inspect_err(|_| self.addresses_changed = true)
    }

    /// Ends the connections of addresses that the network has lost for good.
    pub(super) fn end_connections_of_lost_addresses(&mut self) {
        let lost = self.lost_addresses.take_due(Instant::now());
        if lost.is_empty() {
            return;
        }
        match self.diagnosis.end_connections(&lost) {
            Ok(0) => {}
            Ok(ended) => {
                tracing::info!(ended, ?lost, "ended the connections of addresses that the pod has lost")
            }
            // They end by the servers' time-outs.
            Err(error) => {
                tracing::warn!(%error, ?lost, "connections of addresses that the pod has lost still count")
            }
        }
    }
}

pub(super) fn port_of(notice: &Notice) -> Option<config::Port> {
    let transport = Transport::from_number(u8::try_from(notice.protocol).ok()?)?;
    Some((transport, u16::try_from(notice.port).ok()?))
}
