//! Ports of a pod that are known to be wanted before anybody listens on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Pod, flags, key};
use crate::{
    kernel::{
        KernelError,
        host::Host,
        sockets::Transport,
        steering::{
            config::{self, SteeringConfig},
            hold,
            project::InKernel,
            silence::Silence,
        },
    },
    spec::{PortSet, Protocol},
};

/// More declared ports than these are left to the kernel.
const MOST_DECLARED: usize = 1024;

impl Pod {
    /// Closes what nobody listens on; what serves already goes on. What a supervisor before us has closed stays so until the
    /// choice among its listeners is ours: it may have been killed before it was.
    pub(super) fn adopt(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
    ) -> Result<(), KernelError> {
        self.declare(&mut kernel.host, config)?;
        for key in self.kernel.previous_ports() {
            if let Some(transport) = Transport::from_number(key.protocol) {
                self.port((transport, key.port))?;
            }
        }
        let rows = self.diagnosis.rows()?;
        let hold = longest_hold(config);
        let (previous_layout, declared) = (self.previous_layout.clone(), self.declared.clone());
        for (name, port) in &mut self.ports {
            if let Some(entry) = self.kernel.previous_port(&port.key) {
                // It stays as it is until its listeners were looked at.
                port.flags = entry.flags;
                continue;
            }
            let listens = |v4: bool| {
                rows.iter().any(|row| {
                    key(&row.bound) == *name
                        && if v4 { row.bound.is_open_v4() } else { row.bound.is_open_v6() }
                })
            };
            let was_closed = |v4: bool| {
                previous_layout.as_ref().is_some_and(|previous_layout| previous_layout.was_closed(*name, v4))
            };
            let closed = |v4: bool| declared.contains(name) && (!listens(v4) || was_closed(v4));
            let is_listened_on = rows.iter().any(|row| key(&row.bound) == *name);
            let silent = port.silent(is_listened_on, hold, self.silence.as_ref());
            port.flags = flags(declared.contains(name), closed(true), closed(false), silent);
            port.write_entry(&mut self.kernel)?;
        }
        Ok(())
    }

    /// Opens what is given to whoever comes before anybody listens. Without it they are refused.
    pub(super) fn open_silence(&mut self) {
        if !hold::has_file(self.netns.file()) {
            return;
        }
        let opened = self.kernel.take_place().and_then(|index| {
            Silence::open(&self.netns, index)
                .and_then(|silence| self.kernel.enter_own(silence.socket(), index).map(|()| silence))
                .inspect_err(|_| self.kernel.give_back_place(index))
        });
        self.silence = opened
            .inspect_err(|error| tracing::debug!(%error, "ports that nobody listens on yet refuse"))
            .ok();
    }

    /// Takes note of which ports are known to be wanted, and which are exclusive.
    pub(super) fn declare(&mut self, host: &mut Host, config: &SteeringConfig) -> Result<(), KernelError> {
        let declared: BTreeSet<_> = steered(config).collect();
        if declared != self.declared {
            for name in &declared {
                self.port(*name)?;
            }
            self.declared = declared;
        }
        if config.exclusive != self.exclusive {
            let (before, now) = (words(&self.exclusive), words(&config.exclusive));
            for (transport, word) in before.keys().chain(now.keys()) {
                let bits = now.get(&(*transport, *word)).copied().unwrap_or(0);
                host.maps.set_exclusive(self.host_key((*transport, *word)), bits)?;
            }
            self.exclusive = config.exclusive.clone();
        }
        Ok(())
    }

    pub(super) fn is_declared(&self, port: config::Port) -> bool {
        self.declared.contains(&port)
    }
}

/// How long it may be that nobody listens on a port of a pod before whoever comes is refused.
pub(super) fn longest_hold(config: &SteeringConfig) -> Duration {
    config.rules.values().map(|rules| rules.hold).max().unwrap_or_default()
}

/// Ports that are closed until replicas are ready, and always have room: the declared ones that replicas share.
pub(super) fn steered(config: &SteeringConfig) -> impl Iterator<Item = config::Port> {
    config.declared.iter().copied().filter(|port| !is_exclusive(config, *port)).take(MOST_DECLARED)
}

pub(super) fn is_exclusive(config: &SteeringConfig, (transport, port): config::Port) -> bool {
    config.exclusive.contains(port, transport.into())
}

/// A set of ports as bits, 64 to a word, by their number by 64.
fn words(ports: &PortSet) -> BTreeMap<config::Port, u64> {
    let mut words = BTreeMap::new();
    for range in ports.ranges() {
        let transport = match range.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => continue,
        };
        for port in range.first..=range.last {
            *words.entry((transport, port / 64)).or_default() |= 1 << (port % 64);
        }
    }
    words
}
