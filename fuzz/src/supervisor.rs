//! What a supervisor reads: requests on its socket, and its state.

use std::{cell::RefCell, fmt::Debug, fs};

use sameport::{
    api::protocol::{Line, Reply},
    supervisor::{Request, StateFile},
};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;

/// A request, or an answer to one.
pub fn control_protocol(data: &[u8]) {
    read_back::<Request>(data);
    read_back::<Reply>(data);
    read_back::<Line>(data);
}

/// What can be read is written so that it is read back the same.
fn read_back<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(data) else { return };
    let written = serde_json::to_vec(&read).unwrap_or_else(|error| panic!("{error}: {read:?}"));
    let again: T = serde_json::from_slice(&written)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&written)));
    assert_eq!(format!("{again:?}"), format!("{read:?}"));
}

/// A state file.
pub fn state_file(data: &[u8]) {
    thread_local! {
        static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder for temporary files"));
        let path = folder.path().join("state.json");
        fs::write(&path, data).expect("a file can be written");
        let file = StateFile::at(path);
        match file.load() {
            Ok(loaded) => {
                if let Some(damage) = loaded.damage {
                    assert!(loaded.state.is_empty(), "nothing is known of {damage}");
                    return;
                }
                let _ = loaded.state.expected();
                file.save(&loaded.state).expect("a state can be written");
                let again = file.load().expect("what was written can be read");
                assert_eq!(again, loaded);
            }
            Err(error) => assert!(!error.to_string().is_empty() && !error.help().is_empty()),
        }
    });
}
