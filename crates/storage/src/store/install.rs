//! Fills a fresh folder from a snapshot, and puts it in the place of the old one.
//!
//! The replica is marked before anything else and unmarked after everything else; in between it cannot be
//! opened, so that a crash at any point leads to a new snapshot, never to a mixture.

use super::stores::{folder, installing_mark, new_folder};
use super::tree::{Tree, check_key, encode_applied};
use super::{Node, io_error, sync_directory};
use bytes::Bytes;
use model::ReplicaId;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use world::{APPLIED_KEY, Applied, Install, Store, StoreError};

/// Pairs are gathered until they are a table of this size.
const TABLE_BYTES: usize = 16 << 20;

pub(super) struct FileInstall {
    node: Arc<Node>,
    replica: ReplicaId,
    life: u64,
    unfinished: PathBuf,
    tree: Tree,
    pairs: Vec<(Bytes, Bytes)>,
    bytes: usize,
    last: Bytes,
}

impl FileInstall {
    pub(super) fn begin(
        node: Arc<Node>,
        replica: ReplicaId,
        life: u64,
    ) -> Result<FileInstall, StoreError> {
        let unfinished = new_folder(&node.directory, replica, life);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error(&unfinished)(error));
            }
            _ => {}
        }
        let tree = Tree::open(&node, replica, &unfinished)?;
        Ok(FileInstall {
            node,
            replica,
            life,
            unfinished,
            tree,
            pairs: Vec::new(),
            bytes: 0,
            last: Bytes::new(),
        })
    }

    fn push(&mut self, key: Bytes, value: Bytes) -> Result<(), StoreError> {
        if key <= self.last {
            return Err(StoreError::Refused("keys out of order".to_owned()));
        }
        self.bytes += key.len() + value.len();
        self.last = key.clone();
        self.pairs.push((key, value));
        if self.bytes >= TABLE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        let pairs = std::mem::take(&mut self.pairs);
        if pairs.is_empty() {
            return Ok(());
        }
        self.tree.ingest(pairs)
    }
}

impl Install for FileInstall {
    fn add(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        for (key, value) in pairs {
            check_key(&key)?;
            self.push(key, value)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, applied: Applied) -> Result<Arc<dyn Store>, StoreError> {
        self.write()?;
        let key = Bytes::from_static(&APPLIED_KEY);
        let value = Bytes::from(encode_applied(applied));
        self.tree.ingest(vec![(key, value)])?;
        let FileInstall {
            node,
            replica,
            life,
            unfinished,
            tree,
            ..
        } = *self;
        // It is opened anew under its final name.
        drop(tree);
        let directory = &node.directory;
        let target = folder(directory, replica, life);
        let mut open = node.open.lock();
        let mark = installing_mark(directory, replica);
        if !mark.exists() || !unfinished.exists() {
            return Err(StoreError::Refused(format!(
                "{replica} was removed, or another installation has begun"
            )));
        }
        fs::rename(&unfinished, &target).map_err(io_error(&target))?;
        sync_directory(directory)?;
        let tree = Arc::new(Tree::open(&node, replica, &target)?);
        fs::remove_file(&mark).map_err(io_error(&mark))?;
        sync_directory(directory)?;
        open.insert(replica, tree.clone());
        Ok(tree)
    }
}
