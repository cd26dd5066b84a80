//! How much of a pod's room a service may take. What is kept for one, no other takes, however much it opens.

use std::collections::BTreeMap;

use super::{Pod, Socket, key};
use crate::{
    kernel::{
        raw::{LISTENERS, LISTENERS_OF_ENDPOINT},
        sockets::Bound,
        steering::{config::SteeringConfig, port::Part, project::Life},
    },
    spec::ServiceName,
};

/// Listeners of one replica on undeclared ports that are steered at most.
const MOST_OF_REPLICA: usize = 64;
/// Of all replicas of a pod.
const MOST_OF_POD: usize = 288;
/// Undeclared ports that are kept for each other service of the pod, and for one that may come.
pub const KEPT_PORTS: usize = 8;
/// Listeners on undeclared ports, in the same way.
const KEPT_LISTENERS: usize = 32;
/// Listeners on any port, in the same way.
const KEPT_PLACES: usize = 1024;

/// How much each service has taken of something.
struct Shares<'a> {
    /// Of how much.
    most: usize,
    /// How much is kept for each.
    kept: usize,
    taken: BTreeMap<&'a ServiceName, usize>,
}

impl<'a> Shares<'a> {
    /// None has taken anything.
    fn new(most: usize, kept: usize, services: &[&'a ServiceName]) -> Self {
        // One more may come.
        let fair = most / (services.len() + 1);
        Self { most, kept: kept.min(fair), taken: services.iter().map(|service| (*service, 0)).collect() }
    }

    fn add(&mut self, service: &'a ServiceName, count: usize) {
        *self.taken.entry(service).or_default() += count;
    }

    /// Whether a service may take one more.
    fn has_room(&self, service: &ServiceName) -> bool {
        let all: usize = self.taken.values().sum();
        let own = self.taken.get(service).copied().unwrap_or(0);
        if own < self.kept {
            return all < self.most;
        }
        let others = self.taken.iter().filter(|(other, _)| **other != service);
        let kept: usize = others.map(|(_, taken)| self.kept.saturating_sub(*taken)).sum();
        // One more may come.
        all + kept + self.kept < self.most
    }
}

impl Pod {
    /// Counts the listeners on undeclared ports that each replica has for itself alone.
    pub(super) fn count_unshared(&mut self) {
        self.unshared.clear();
        for socket in self.sockets.values() {
            if let Socket::Alone { life, bound } = socket
                && !self.is_declared(key(bound))
            {
                *self.unshared.entry(life.clone()).or_default() += 1;
            }
        }
    }

    /// Whether a listener can be steered. Those of declared ports come first: only who has more of them than there is room
    /// left for is left alone. Of others each replica has a limit, and each service leaves something for the others.
    pub(super) fn has_room(&self, config: &SteeringConfig, life: &Life, bound: &Bound) -> bool {
        let name = key(bound);
        let Some(service) = self.residents.get(life).map(|resident| &resident.service) else { return true };
        let part = self.ports.get(&name).and_then(|port| port.endpoints.get(life));
        if part.is_some_and(|part| count(part) >= LISTENERS_OF_ENDPOINT) {
            return false;
        }
        if !self.has_place(config, life, service) {
            return false;
        }
        self.is_declared(name)
            || self.has_port(config, service, bound) && self.has_undeclared(config, life, service)
    }

    /// The services of the pod.
    fn services<'a>(&'a self, config: &'a SteeringConfig) -> Vec<&'a ServiceName> {
        let mut services: Vec<_> = config.rules.keys().collect();
        services.extend(self.residents.values().map(|resident| &resident.service));
        services.sort();
        services.dedup();
        services
    }

    /// Whether there is a place in the map of sockets.
    fn has_place(&self, config: &SteeringConfig, life: &Life, service: &ServiceName) -> bool {
        let (free, most) = (self.kernel.free_places(), LISTENERS as usize);
        // More than half is kept for nobody.
        if free > most / 2 {
            return true;
        }
        let services = self.services(config);
        let kept = KEPT_PLACES.min(most / 2 / (services.len() + 1));
        let mut shares = Shares::new(most, kept, &services);
        let mut own = 0;
        for (other, part) in self.ports.values().flat_map(|port| &port.endpoints) {
            if other == life {
                own += count(part);
            }
            if let Some(resident) = self.residents.get(other) {
                shares.add(&resident.service, count(part));
            }
        }
        // Whoever takes more than is left takes it from the replicas to come.
        own < free && shares.has_room(service)
    }

    /// Whether an undeclared port is one of those that are steered, or can become one.
    fn has_port(&self, config: &SteeringConfig, service: &ServiceName, bound: &Bound) -> bool {
        if self.ports.contains_key(&key(bound)) {
            return true;
        }
        let reserved = self.declared.iter().filter(|port| !self.ports.contains_key(*port)).count();
        let undeclared = self.ports.iter().filter(|(name, _)| !self.is_declared(**name));
        let undeclared: Vec<_> = undeclared.map(|(_, port)| port.service.as_ref()).collect();
        let most = undeclared.len() + self.kernel.free_ports().saturating_sub(reserved);
        let mut shares = Shares::new(most, KEPT_PORTS, &self.services(config));
        // What a supervisor before us has left, and nobody has listened on since, is nobody's.
        shares.most -= undeclared.iter().filter(|service| service.is_none()).count();
        undeclared.into_iter().flatten().for_each(|service| shares.add(service, 1));
        shares.has_room(service)
    }

    /// Whether a replica may have one more listener on undeclared ports.
    fn has_undeclared(&self, config: &SteeringConfig, life: &Life, service: &ServiceName) -> bool {
        let mut shares = Shares::new(MOST_OF_POD, KEPT_LISTENERS, &self.services(config));
        // Those that are not shared take no place, but as much time to look at as the others.
        let mut own = self.unshared.get(life).copied().unwrap_or(0);
        let undeclared = self.ports.iter().filter(|(name, _)| !self.is_declared(**name));
        for (other, part) in undeclared.flat_map(|(_, port)| &port.endpoints) {
            if other == life {
                own += count(part);
            }
            if let Some(resident) = self.residents.get(other) {
                shares.add(&resident.service, count(part));
            }
        }
        own < MOST_OF_REPLICA && shares.has_room(service)
    }
}

fn count(part: &Part) -> usize {
    part.listeners.iter().map(Vec::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_takes_all_but_what_is_kept_for_the_others_and_they_get_that() {
        let [web, metrics, shell] =
            ["web", "metrics", "shell"].map(|name| name.parse::<ServiceName>().unwrap());
        let (web, metrics, shell) = (&web, &metrics, &shell);
        // The first one knows of nobody else; who comes then gets what was kept.
        let mut shares = Shares::new(56, 8, &[web]);
        assert_eq!([web, metrics, shell].map(|service| take_all(&mut shares, service)), [48, 8, 0]);
        // Of three that are known each has its own.
        let mut shares = Shares::new(56, 8, &[web, metrics, shell]);
        assert_eq!([web, metrics, shell].map(|service| take_all(&mut shares, service)), [32, 8, 8]);
        // Where there is little, each has an equal part.
        let mut shares = Shares::new(9, 8, &[web, metrics]);
        assert_eq!([web, metrics].map(|service| take_all(&mut shares, service)), [3, 3]);
    }

    fn take_all<'a>(shares: &mut Shares<'a>, service: &'a ServiceName) -> usize {
        let mut taken = 0;
        while shares.has_room(service) {
            shares.add(service, 1);
            taken += 1;
        }
        taken
    }
}
