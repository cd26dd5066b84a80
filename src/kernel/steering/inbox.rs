//! What a thread that sleeps in `poll` (2) is told by others.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::event::{EventfdFlags, eventfd};

use crate::kernel::KernelError;

/// Orders for a thread, and a descriptor that can be read when there are some.
#[derive(Debug)]
pub struct Inbox<T> {
    orders: Mutex<T>,
    wake: OwnedFd,
}

impl<T: Default> Inbox<T> {
    /// One without orders.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> Result<Self, KernelError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| KernelError::io("make an event descriptor")(errno.into()))?;
        Ok(Self { orders: Mutex::default(), wake })
    }

    /// Changes the orders, and wakes the thread.
    pub fn tell(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        // It fails only when it is full of wakes already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Takes all orders that were given so far.
    pub fn take(&self) -> T {
        // It fails only when nobody has told anything.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
