//! The real implementation passes the suite. Its crash is the copy of the directory at that moment: what a killed
//! process leaves.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use storage::conformance::{self, Disk};
use storage::{Options, Storage};
use tempfile::TempDir;
use world::{Log, Stores};

struct RealDisk {
    directory: TempDir,
    storage: Option<Storage>,
    /// What has crashed lives on until the end of the test, where it no longer matters.
    crashed: Vec<(TempDir, Storage)>,
}

pub fn copy(from: &Path, to: &Path) {
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        // A folder that was given up in this very moment.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("{}: {error}", from.display()),
    };
    fs::create_dir_all(to).unwrap();
    for entry in entries {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if let Err(error) = fs::copy(&path, &target) {
            // A table that was given up in this very moment.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

impl Disk for RealDisk {
    fn open(&mut self) -> (Arc<dyn Log>, Arc<dyn Stores>) {
        let storage = storage::open(self.directory.path(), Options::default()).unwrap();
        let handles = (storage.log.clone(), storage.stores.clone());
        self.storage = Some(storage);
        handles
    }

    fn close(&mut self) {
        if let Some(storage) = self.storage.take() {
            storage.close();
        }
    }

    fn crash(&mut self) {
        let copied = TempDir::new().unwrap();
        copy(self.directory.path(), copied.path());
        let old = std::mem::replace(&mut self.directory, copied);
        self.crashed
            .extend(self.storage.take().map(|storage| (old, storage)));
    }
}

fn new() -> Box<dyn Disk> {
    Box::new(RealDisk {
        directory: TempDir::new().unwrap(),
        storage: None,
        crashed: Vec::new(),
    })
}

#[tokio::test]
async fn the_log_passes() {
    conformance::log(&new).await;
}

#[tokio::test]
async fn the_stores_pass() {
    conformance::stores(&new).await;
}
