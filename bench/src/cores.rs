//! Who computes where. Load has cores of its own, as if it came from another host: otherwise what a way to reach replicas
//! costs would be hidden by what the load itself costs.

use std::fmt::Write as _;

use anyhow::Result;
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

/// Some of this machine's cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(Vec<usize>);

/// How the cores of this machine are shared out. If there is only one, both have it.
pub struct Shares {
    /// For replicas, proxies, and the packets that come for them.
    pub serving: Cores,
    /// For the load, and the packets that come for it: half of all.
    pub load: Cores,
}

impl Shares {
    /// Of the cores that this process may use.
    pub fn of_machine() -> Result<Self> {
        let may = sched_getaffinity(Pid::from_raw(0))?;
        let all: Vec<_> = (0..CpuSet::count()).filter(|core| may.is_set(*core).unwrap_or(false)).collect();
        Ok(Self::of(&all))
    }

    fn of(all: &[usize]) -> Self {
        let (serving, load) = all.split_at(all.len().div_ceil(2));
        let load = if load.is_empty() { serving } else { load };
        Self { serving: Cores(serving.to_vec()), load: Cores(load.to_vec()) }
    }
}

impl Cores {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Their numbers, as `taskset -c` and `cpuset` take them.
    pub fn list(&self) -> String {
        let numbers: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        numbers.join(",")
    }

    /// A bit for each, as files below `/sys` take them: words of 32 bits, the highest first.
    pub fn mask(&self) -> String {
        let words = self.0.iter().max().map_or(0, |core| core / 32);
        let mut text = String::new();
        for word in (0..=words).rev() {
            let bits = self
                .0
                .iter()
                .filter(|core| *core / 32 == word)
                .fold(0_u32, |bits, core| bits | 1 << (core % 32));
            let _ = write!(text, "{}{bits:08x}", if text.is_empty() { "" } else { "," });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_has_half_of_the_cores_and_at_least_one() {
        let of = |all: &[usize]| {
            let shares = Shares::of(all);
            (shares.serving.list(), shares.load.list())
        };
        assert_eq!(of(&[0]), ("0".to_owned(), "0".to_owned()));
        assert_eq!(of(&[0, 1]), ("0".to_owned(), "1".to_owned()));
        assert_eq!(of(&[1, 3, 5]), ("1,3".to_owned(), "5".to_owned()));
    }

    #[test]
    fn a_mask_has_words_of_32_bits() {
        assert_eq!(Cores(vec![0, 1]).mask(), "00000003");
        assert_eq!(Cores(vec![1, 33]).mask(), "00000002,00000002");
    }
}
