//! Tells the kernel by which rules a pod's ports are shared, and hands on connections that wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Pod, Socket, declared::longest_hold};
use crate::{
    kernel::{
        KernelError,
        raw::{CLOSED_V4, CLOSED_V6, DECLARED, PodPortKey, SILENT},
        sockets::{Bound, Row},
        source_ports,
        steering::{
            config::{self, Rules, SteeringConfig, Waiting},
            port::Port,
            project::InKernel,
        },
    },
    spec::Balance,
};

/// So many ports that nobody has declared are kept from being source ports.
const MOST_RESERVED: usize = 1024;

impl Pod {
    pub(super) fn write(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
    ) -> Result<(), KernelError> {
        let names: Vec<_> = self.ports.keys().copied().collect();
        self.is_short_of_files = false;
        for name in names {
            if let Some(port) = self.ports.get_mut(&name) {
                // Where connections wait has to be known before they are sent there.
                self.is_short_of_files |=
                    !port.hold(&mut self.kernel, &mut kernel.host, &self.netns, rules(config, port).hold)?;
            }
            self.write_port_by(name, |port| rules(config, port))?;
        }
        Ok(())
    }

    /// Writes a port by the rules that it has.
    pub(super) fn write_port(&mut self, name: config::Port) -> Result<(), KernelError> {
        self.write_port_by(name, Port::rules)
    }

    pub(super) fn write_port_by(
        &mut self,
        name: config::Port,
        rules: impl Fn(&Port) -> Rules,
    ) -> Result<(), KernelError> {
        let Some(port) = self.ports.get_mut(&name) else { return Ok(()) };
        let rules = rules(port);
        let residents = &self.residents;
        let least = u32::from(!rules.gates_undeclared && !self.declared.contains(&name));
        port.write(&mut self.kernel, &rules, |life| {
            residents.get(life).map(|resident| (resident.address, resident.weight.max(least)))
        })
    }

    pub(super) fn attend(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
        rows: &[Row],
    ) -> Result<BTreeMap<u16, Waiting>, KernelError> {
        // Between the look at `rows` and a new table more may have come. As long as a table stays, those who come are
        // seen by the next look.
        let mut anew = false;
        for port in self.ports.values_mut() {
            anew |= port.take_written() && port.groups.iter().flatten().any(|group| group.hold.is_some());
        }
        let later = if anew { Some(self.diagnosis.rows()?) } else { None };
        let rows = later.as_deref().unwrap_or(rows);
        let mut waiting = BTreeMap::new();
        for ((_, number), port) in &mut self.ports {
            let count = |cookie| rows.iter().find(|row| row.cookie == cookie).map_or(0, |row| row.waiting);
            let hold = rules(config, port).hold;
            let connections = port.attend(&mut self.kernel, &mut kernel.host, &self.netns, hold, count)?;
            if port.can_wait() > 0 {
                waiting.insert(*number, Waiting { connections, most: u64::from(port.can_wait()) });
            }
        }
        Ok(waiting)
    }

    /// Closes declared ports to packets of a family in which nobody listens. Who listens on localhost alone is for nobody else.
    pub(super) fn close_all_but_served(&mut self, config: &SteeringConfig) -> Result<(), KernelError> {
        let hold = longest_hold(config);
        // Who has a port for himself alone is in nobody's way.
        let alone: BTreeSet<_> = self
            .sockets
            .values()
            .filter_map(
                |socket| if let Socket::Alone { bound, .. } = socket { Some(key(bound)) } else { None },
            )
            .collect();
        for (name, port) in &mut self.ports {
            let takes =
                |family: fn(&Bound) -> bool| port.groups.iter().flatten().any(|group| family(&group.bound));
            let closed = |family: fn(&Bound) -> bool| {
                self.declared.contains(name) && !alone.contains(name) && !takes(family)
            };
            let (closed_v4, closed_v6) = (closed(Bound::is_open_v4), closed(Bound::is_open_v6));
            // Who listens on localhost alone is there: others are refused, as by a container of its own.
            let is_listened_on = !port.is_empty() || alone.contains(name);
            let silent = port.silent(is_listened_on, hold, self.silence.as_ref());
            port.flags = flags(self.declared.contains(name), closed_v4, closed_v6, silent);
            port.write_entry(&mut self.kernel)?;
        }
        Ok(())
    }

    /// Keeps ports that replicas listen on, or are known to want, from being used as source ports.
    pub(super) fn reserve_ports(&mut self, config: &SteeringConfig) {
        let alone = self.sockets.values().filter_map(|socket| match socket {
            Socket::Alone { bound, .. } => Some(bound.address.port()),
            _ => None,
        });
        let declared: BTreeSet<u16> = config.declared.iter().map(|(_, port)| *port).collect();
        let others: BTreeSet<u16> = self.ports.keys().map(|(_, port)| *port).chain(alone).collect();
        let known = self.reserved.clone().unwrap_or_default();
        // A replica that listens on ever other ports must not take all source ports away.
        let room = MOST_RESERVED.saturating_sub(known.difference(&declared).count());
        let new: BTreeSet<u16> = others.difference(&known).copied().take(room).collect();
        let ports = &(&known | &declared) | &new;
        if self.reserved.as_ref() == Some(&ports) {
            return;
        }
        let ports = self.reserved.insert(ports);
        if let Err(error) = source_ports::reserve(&self.netns, ports) {
            tracing::warn!(%error, "source ports of a pod stay as they are");
        }
    }
}

/// `silent`: the place of the socket that drops what comes to a closed port.
pub(super) fn flags(declared: bool, closed_v4: bool, closed_v6: bool, silent: Option<u32>) -> u32 {
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let silent = silent.map_or(0, |place| SILENT | place << 16);
    flag(declared, DECLARED) | flag(closed_v4, CLOSED_V4) | flag(closed_v6, CLOSED_V6) | silent
}

pub(super) fn key(bound: &Bound) -> config::Port {
    (bound.transport, bound.address.port())
}

pub(super) fn pod_key((transport, port): config::Port) -> PodPortKey {
    PodPortKey { port, protocol: transport.number(), unused: 0 }
}

pub(super) fn rules(config: &SteeringConfig, port: &Port) -> Rules {
    let none = Rules { balance: Balance::default(), hold: Duration::ZERO, gates_undeclared: true };
    port.service.as_ref().and_then(|service| config.rules.get(service)).copied().unwrap_or(none)
}
