//! Ids that are given out and taken back: places in the programs' maps.

use std::collections::BTreeSet;

use crate::kernel::KernelError;

/// Ids from 0 up.
#[derive(Debug)]
pub struct Ids {
    what: &'static str,
    most: u32,
    used: BTreeSet<u32>,
}

impl Ids {
    /// So many numbers for something, which messages name.
    pub fn new(what: &'static str, most: u32) -> Self {
        Self { what, most, used: BTreeSet::new() }
    }

    /// Marks one as given out; false if it was already.
    pub fn mark(&mut self, number: u32) -> bool {
        self.used.insert(number)
    }

    /// Takes the lowest that is free.
    ///
    /// # Errors
    /// When none is.
    pub fn take(&mut self) -> Result<u32, KernelError> {
        let free = (0..self.most).find(|number| !self.used.contains(number));
        let number = free.ok_or(KernelError::Full { what: self.what, most: self.most as usize })?;
        self.used.insert(number);
        Ok(number)
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        (self.most as usize).saturating_sub(self.used.len())
    }

    /// Takes one back.
    pub fn give_back(&mut self, number: u32) {
        self.used.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_one_is_given_out_until_there_is_none() {
        let mut numbers = Ids::new("ports", 3);
        assert!(numbers.mark(1));
        assert!(!numbers.mark(1));
        assert_eq!((numbers.take().unwrap(), numbers.take().unwrap(), numbers.free()), (0, 2, 0));
        assert_eq!(numbers.take().unwrap_err().to_string(), "too many ports: the maximum is 3");
        numbers.give_back(1);
        assert_eq!(numbers.take().unwrap(), 1);
    }
}
