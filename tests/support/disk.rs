//! A file system that is small, so that a test can fill it.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A file system in memory at a folder; it is taken away when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of that size, such as `300m`, in a folder that is made for it.
    pub fn at(folder: &Path, size: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let options = CString::new(format!("size={size},mode=0755")).unwrap();
        mount("tmpfs", folder, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .expect("a mount takes root");
        Self(folder.to_owned())
    }

    /// Leaves no byte of room on it, until [`Self::free`].
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        loop {
            match file.write(&[0; 1 << 16]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// There is room again.
    pub fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has files of it open keeps them; it may be gone already.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
