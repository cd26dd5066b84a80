//! Who has which listener of a pod, and its place among those that the kernel chooses from.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use socket2::SockRef;

use super::{Pod, Resident, Socket, key};
use crate::kernel::{
    KernelError, processes,
    raw::{ENDPOINTS, PortKey},
    sockets::{Row, Transport},
    steering::{
        port::{Door, Part, Port},
        project::{InKernel, Life},
        wish::Stranger,
    },
};

impl Pod {
    /// Lets go of listeners that have been closed.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub(super) fn forget_closed(&mut self, kernel: &mut InKernel, rows: &[Row]) -> Result<(), KernelError> {
        let there: BTreeSet<u64> = rows.iter().map(|row| row.cookie).collect();
        self.sought.retain(|cookie| there.contains(cookie));
        let closed: Vec<u64> =
            self.sockets.keys().filter(|cookie| !there.contains(cookie)).copied().collect();
        for cookie in closed {
            let Some(Socket::Entered { life, port, door, index }) = self.sockets.remove(&cookie) else {
                continue;
            };
            let part = self.ports.get_mut(&port).and_then(|port| port.endpoints.get_mut(&life));
            if let Some(listeners) = part.and_then(|part| part.listeners.get_mut(door)) {
                listeners.retain(|(listener, _)| *listener != cookie);
            }
            // Nothing points to it any more before its place can be another's.
            self.write_port(kernel, port)?;
            kernel.forget(cookie, index);
        }
        Ok(())
    }

    /// Finds out what a socket is, if that is not known.
    ///
    /// # Errors
    /// When it cannot be looked at, or the kernel does not take it.
    pub(super) fn meet(&mut self, kernel: &mut InKernel, row: &Row) -> Result<(), KernelError> {
        let ours = |port: &Port| {
            let mut holds = port.doors.iter().flatten().filter_map(|door| door.hold.as_ref());
            holds.any(|hold| hold.cookie == row.cookie)
        };
        let seen = self.sockets.get(&row.cookie);
        let (is_new, is_known) =
            (seen.is_none(), seen.is_some_and(|socket| !matches!(socket, Socket::Unknown { .. })));
        if is_known || self.ports.get(&key(&row.bound)).is_some_and(ours) {
            return Ok(());
        }
        let Some(life) = self.owner(row) else {
            let port = self.ports.get(&key(&row.bound)).filter(|port| port.doors.iter().any(Option::is_some));
            if let (Some(port), true) = (port, is_new) {
                let holder = processes::holder(row.inode);
                let (pid, command) = holder.map_or((None, String::new()), |(pid, name)| (Some(pid), name));
                let takes = port.door(&row.bound).is_none().then_some(row.bound.address);
                let stranger = Stranger { port: row.bound.address.port(), takes, pid, command };
                self.sockets.insert(row.cookie, Socket::Unknown { since: Instant::now(), stranger });
            }
            return Ok(());
        };
        let Some(resident) = self.residents.get(&life) else { return Ok(()) };
        let processes = resident.cgroup.processes();
        // Closed again, or passed on to somebody else: the next look tells.
        let Some(socket) = processes::duplicate(&processes, row.inode)? else { return Ok(()) };
        let shares = SockRef::from(&socket)
            .reuse_port()
            .map_err(KernelError::io("look at a listener of a replica"))?;
        let port = key(&row.bound);
        let known = match (shares, row.bound.transport) {
            (true, _) => self.enter(kernel, row, life, &socket)?,
            (false, Transport::Tcp) => Socket::Alone { life, port },
            (false, Transport::Udp) => Socket::Ignored,
        };
        self.sockets.insert(row.cookie, known);
        Ok(())
    }

    /// Whose a socket is.
    fn owner(&mut self, row: &Row) -> Option<Life> {
        let cgroup = row.cgroup?;
        let find = |residents: &BTreeMap<Life, Resident>| {
            residents
                .iter()
                .find(|(_, resident)| resident.ids.contains(&cgroup))
                .map(|(life, _)| life.clone())
        };
        find(&self.residents).or_else(|| {
            // A replica may have made groups of its own since. Once is enough for each socket: what belongs to others,
            // such as the engine's own in each pod, stays.
            if !self.sought.insert(row.cookie) {
                return None;
            }
            for resident in self.residents.values_mut() {
                resident.ids = resident.cgroup.ids().into_iter().collect();
            }
            find(&self.residents)
        })
    }

    fn enter(
        &mut self,
        kernel: &mut InKernel,
        row: &Row,
        life: Life,
        socket: &OwnedFd,
    ) -> Result<Socket, KernelError> {
        let name = key(&row.bound);
        let Some(resident) = self.residents.get(&life) else { return Ok(Socket::Ignored) };
        let port_key = PortKey {
            netns: self.diagnosis.cookie,
            port: row.bound.address.port(),
            protocol: row.bound.transport.number(),
            ..PortKey::default()
        };
        let port = match self.ports.entry(name) {
            std::collections::btree_map::Entry::Occupied(port) => port.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Port::new(kernel.take_port(port_key)?, port_key, resident.service.clone()))
            }
        };
        let inherited = kernel.left_behind(row.cookie);
        let door = match (port.door(&row.bound), &inherited) {
            (Some(door), _) => door,
            (None, Some(listener)) if port.doors.get(listener.door as usize).is_some_and(Option::is_none) => {
                listener.door as usize
            }
            (None, _) => port.free_door()?,
        };
        if let Some(place @ None) = port.doors.get_mut(door) {
            let number = u32::try_from(door).unwrap_or(0);
            let chooser = match port.choosers.get_mut(door) {
                // The group was empty for a moment: loading it anew would take longer than that.
                Some(Some(chooser)) => chooser,
                Some(none) => {
                    none.insert(kernel.programs().chooser(row.bound.transport, port.number, number)?)
                }
                None => return Ok(Socket::Ignored),
            };
            chooser.attach(socket.as_fd())?;
            *place = Some(Door { bound: row.bound, user: row.user, hold: None });
        }
        kernel.write_user(port_key, row.user)?;
        self.other_users.retain(|port, other| *port != port_key.port || other.user != row.user);
        let number = match (port.endpoints.get(&life), &inherited) {
            (Some(part), _) => part.number,
            (None, Some(listener)) => listener.endpoint,
            (None, None) => kernel.take_endpoint()?,
        };
        let index = match inherited {
            Some(listener) => {
                kernel.inherit(row.cookie);
                listener.index
            }
            None => {
                let index = kernel.take_place()?;
                kernel
                    .enter(socket, row.cookie, index, number, port.number, door)
                    .inspect_err(|_| kernel.give_back_place(index))?;
                index
            }
        };
        let part = port.endpoints.entry(life.clone()).or_insert_with(|| Part::new(number));
        if let Some(listeners) = part.listeners.get_mut(door) {
            listeners.push((row.cookie, index));
        }
        Ok(Socket::Entered { life, port: name, door, index })
    }

    /// Lets go of parts of replicas that are no more, of groups that nobody is in, and of what a supervisor before us
    /// has left.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    pub(super) fn let_go_of_the_dead(&mut self, kernel: &mut InKernel) -> Result<(), KernelError> {
        for port in self.ports.values_mut() {
            for endpoint in kernel.bury(port.number) {
                if endpoint < ENDPOINTS && !port.endpoints.values().any(|part| part.number == endpoint) {
                    kernel.retire(endpoint)?;
                }
            }
            let dead: Vec<_> = port
                .endpoints
                .iter()
                .filter(|(life, part)| !self.residents.contains_key(life) && !part.listens())
                .map(|(life, part)| (life.clone(), part.number))
                .collect();
            for (life, number) in dead {
                port.endpoints.remove(&life);
                kernel.retire(number)?;
            }
            for door in 0..port.doors.len() {
                let is_empty = !port.is_inhabited(door);
                if let Some(place) = port.doors.get_mut(door)
                    && is_empty
                    && place.as_ref().is_some_and(|door| door.hold.is_none())
                {
                    *place = None;
                }
            }
        }
        Ok(())
    }
}
