//! Network namespaces.

use std::{fs, os::unix::fs::MetadataExt};

/// Inode of the network namespace of a process of this host: two processes share a network exactly when it is
/// equal (namespaces(7)). `None` when there is no such process, or we may not look (ptrace(2) access is needed).
#[must_use]
pub fn inode(pid: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| meta.ino())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_shares_its_network_with_itself() {
        let own = super::inode(std::process::id());
        assert!(own.is_some());
        assert_eq!(own, super::inode(std::process::id()));
        assert_eq!(super::inode(u32::MAX), None);
    }
}
