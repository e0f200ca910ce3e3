//! Which stores there are: folders, marks, and the changes of them that a crash may cut short.
//!
//! ```text
//! r7-3/            replica 7, its third life: the tree's own files
//! r7-4.new/        a fourth life that is being filled, or a copy that is being made
//! r7.installing    replica 7 needs a new snapshot, whatever its folder holds
//! r7-2.dead        the folder of life 2 is to be removed
//! ```
//!
//! Each change is one rename or one mark that appears or goes, followed by a sync of the directory. Of several
//! lives the highest one counts; an older folder stays only while somebody still reads it. At start, whatever
//! is dead, superseded or unfinished is removed.

use super::install::FileInstall;
use super::tree::Tree;
use super::{Node, StoreMetrics, StoreOptions, Threads, io_error, sync_directory};
use crate::OpenError;
use crate::log::FileLog;
use model::ReplicaId;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::{EditCopy, Install, Store, StoreError, Stores};

const NEW: &str = ".new";
const DEAD: &str = ".dead";
const INSTALLING: &str = ".installing";
/// Where the tree keeps its immutable files.
pub(super) const TABLES: &str = "tables";

/// The stores of a node, in a directory.
pub struct FileStores {
    node: Arc<Node>,
}

/// What a name in the directory stands for.
enum Name {
    Folder(ReplicaId, u64),
    New,
    Dead(ReplicaId, u64),
    Installing(ReplicaId),
    Other,
}

fn parse(name: &str) -> Name {
    fn folder(name: &str) -> Option<(ReplicaId, u64)> {
        let (replica, life) = name.strip_prefix('r')?.split_once('-')?;
        Some((ReplicaId(replica.parse().ok()?), life.parse().ok()?))
    }
    fn replica(name: &str) -> Option<ReplicaId> {
        Some(ReplicaId(name.strip_prefix('r')?.parse().ok()?))
    }
    if name.ends_with(NEW) {
        return Name::New;
    }
    if let Some(dead) = name.strip_suffix(DEAD) {
        return folder(dead).map_or(Name::Other, |(replica, life)| Name::Dead(replica, life));
    }
    if let Some(marked) = name.strip_suffix(INSTALLING) {
        return replica(marked).map_or(Name::Other, Name::Installing);
    }
    folder(name).map_or(Name::Other, |(replica, life)| Name::Folder(replica, life))
}

#[derive(Default)]
struct Listing {
    /// All lives of each replica that has a folder or a mark.
    lives: BTreeMap<ReplicaId, Vec<u64>>,
    installing: Vec<ReplicaId>,
    dead: Vec<(ReplicaId, u64)>,
    new: Vec<PathBuf>,
}

impl Listing {
    fn read(directory: &Path) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(directory).map_err(io_error(directory))? {
            let path = entry.map_err(io_error(directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            match parse(name.unwrap_or_default()) {
                Name::Folder(replica, life) => {
                    listing.lives.entry(replica).or_default().push(life);
                }
                Name::New => listing.new.push(path),
                Name::Dead(replica, life) => listing.dead.push((replica, life)),
                Name::Installing(replica) => listing.installing.push(replica),
                Name::Other => {}
            }
        }
        for (replica, life) in &listing.dead {
            if let Some(lives) = listing.lives.get_mut(replica) {
                lives.retain(|other| other != life);
            }
        }
        listing.lives.retain(|_, lives| !lives.is_empty());
        Ok(listing)
    }

    fn life(&self, replica: ReplicaId) -> Option<u64> {
        self.lives.get(&replica)?.iter().max().copied()
    }

    /// A number above all that this replica has ever had and that could still be seen.
    fn next_life(&self, replica: ReplicaId) -> u64 {
        let dead = self.dead.iter().filter(|(other, _)| *other == replica);
        let dead = dead.map(|(_, life)| *life).max();
        self.life(replica).max(dead).unwrap_or(0) + 1
    }
}

impl FileStores {
    /// Opens the directory and starts the threads that flush and compact, and that keep `log` small.
    pub(crate) fn open(
        directory: &Path,
        options: &StoreOptions,
        log: &Arc<FileLog>,
    ) -> Result<(FileStores, Threads, Arc<StoreMetrics>), OpenError> {
        fs::create_dir_all(directory).map_err(OpenError::io(directory))?;
        clean(directory).map_err(|error| OpenError::Io(error.to_string()))?;
        let node = Node::new(directory, options);
        let threads = Threads::start(&node, log).map_err(OpenError::io(directory))?;
        let metrics = node.metrics.clone();
        Ok((FileStores { node }, threads, metrics))
    }

    fn listing(&self) -> Result<Listing, StoreError> {
        Listing::read(&self.node.directory)
    }
}

/// Removes what a crash has left unfinished.
fn clean(directory: &Path) -> Result<(), StoreError> {
    let listing = Listing::read(directory)?;
    let mut obsolete = listing.new.clone();
    for (replica, lives) in &listing.lives {
        let newest = lives.iter().max();
        let older = lives.iter().filter(|life| Some(*life) != newest);
        obsolete.extend(older.map(|life| folder(directory, *replica, *life)));
    }
    for (replica, life) in &listing.dead {
        obsolete.push(folder(directory, *replica, *life));
    }
    for path in obsolete {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error(&path)(error));
            }
            _ => {}
        }
    }
    sync_directory(directory)?;
    for (replica, life) in &listing.dead {
        let mark = dead_mark(directory, *replica, *life);
        fs::remove_file(&mark).map_err(io_error(&mark))?;
    }
    Ok(())
}

pub(super) fn folder(directory: &Path, replica: ReplicaId, life: u64) -> PathBuf {
    directory.join(format!("r{}-{life}", replica.0))
}

pub(super) fn new_folder(directory: &Path, replica: ReplicaId, life: u64) -> PathBuf {
    directory.join(format!("r{}-{life}{NEW}", replica.0))
}

fn dead_mark(directory: &Path, replica: ReplicaId, life: u64) -> PathBuf {
    directory.join(format!("r{}-{life}{DEAD}", replica.0))
}

pub(super) fn installing_mark(directory: &Path, replica: ReplicaId) -> PathBuf {
    directory.join(format!("r{}{INSTALLING}", replica.0))
}

fn create_mark(directory: &Path, mark: &Path) -> Result<(), StoreError> {
    File::create(mark).map_err(io_error(mark))?;
    sync_directory(directory)
}

impl Stores for FileStores {
    fn open(&self, replica: ReplicaId) -> Result<Arc<dyn Store>, StoreError> {
        let node = &self.node;
        let mut open = node.open.lock();
        if let Some(tree) = open.get(&replica) {
            return Ok(tree.clone());
        }
        if installing_mark(&node.directory, replica).exists() {
            return Err(StoreError::Installing(replica));
        }
        let listing = self.listing()?;
        let life = listing.life(replica);
        let path = folder(
            &node.directory,
            replica,
            life.unwrap_or_else(|| listing.next_life(replica)),
        );
        let tree = Arc::new(Tree::open(node, replica, &path)?);
        if life.is_none() {
            sync_directory(&node.directory)?;
        }
        open.insert(replica, tree.clone());
        Ok(tree)
    }

    fn list(&self) -> Result<Vec<(ReplicaId, bool)>, StoreError> {
        let listing = self.listing()?;
        let mut replicas: BTreeMap<ReplicaId, bool> = listing
            .lives
            .keys()
            .map(|replica| (*replica, false))
            .collect();
        for replica in &listing.installing {
            replicas.insert(*replica, true);
        }
        Ok(replicas.into_iter().collect())
    }

    fn begin_install(&self, replica: ReplicaId) -> Result<Box<dyn Install>, StoreError> {
        let node = &self.node;
        let mut open = node.open.lock();
        create_mark(&node.directory, &installing_mark(&node.directory, replica))?;
        // Who holds the old store may read it on; its files go with the last of them.
        if let Some(tree) = open.remove(&replica) {
            tree.doom();
        }
        let life = self.listing()?.next_life(replica);
        let install = FileInstall::begin(node.clone(), replica, life)?;
        Ok(Box::new(install))
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let directory = &self.node.directory;
        let mut open = self.node.open.lock();
        let listing = self.listing()?;
        if let Some(lives) = listing.lives.get(&replica) {
            for life in lives {
                let mark = dead_mark(directory, replica, *life);
                File::create(&mark).map_err(io_error(&mark))?;
            }
        }
        let mark = installing_mark(directory, replica);
        match fs::remove_file(&mark) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error(&mark)(error));
            }
            _ => {}
        }
        sync_directory(directory)?;
        match open.remove(&replica) {
            Some(tree) => tree.doom(),
            None => {
                for life in listing.lives.get(&replica).into_iter().flatten() {
                    remove_folder(&folder(directory, replica, *life));
                }
            }
        }
        Ok(())
    }

    fn copy(&self, from: ReplicaId, to: ReplicaId, edit: EditCopy<'_>) -> Result<(), StoreError> {
        let node = &self.node;
        let tree = node.open.lock().get(&from).cloned();
        // While it is open, no flush or compaction may change the folder meanwhile.
        let standing = tree.as_ref().map(|tree| tree.standing.write());
        let open = node.open.lock();
        let listing = self.listing()?;
        if listing.installing.contains(&from) {
            return Err(StoreError::Installing(from));
        }
        if listing.life(to).is_some() || open.contains_key(&to) {
            return Err(StoreError::Refused(format!("{to} exists")));
        }
        let Some(life) = listing.life(from) else {
            return Err(StoreError::Refused(format!("{from} does not exist")));
        };
        drop(open);
        let source = folder(&node.directory, from, life);
        let life = listing.next_life(to);
        let unfinished = new_folder(&node.directory, to, life);
        copy_folder(&source, &unfinished)?;
        drop(standing);
        let edited = Tree::open(node, to, &unfinished)
            .and_then(|copy| edit(&copy).and_then(|batch| copy.rewrite(batch)));
        if let Err(error) = edited {
            // What stays of it goes at the next start.
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        let target = folder(&node.directory, to, life);
        fs::rename(&unfinished, &target).map_err(io_error(&target))?;
        sync_directory(&node.directory)
    }
}

/// Removes the folder of a store that nobody reads any more, and then the mark that says so.
pub(super) fn remove_folder(path: &Path) {
    let removed = fs::remove_dir_all(path);
    let directory = path.parent().unwrap_or(path);
    if removed.is_err() || sync_directory(directory).is_err() {
        tracing::warn!(folder = %path.display(), "a removed store's files stay until the next start");
        return;
    }
    let mut mark = path.as_os_str().to_owned();
    mark.push(DEAD);
    // A superseded life has none.
    let _ = fs::remove_file(mark);
}

/// Copies a tree that stands still: links to its tables, which never change, and copies of the rest.
fn copy_folder(source: &Path, target: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(target) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error(target)(error)),
        _ => {}
    }
    let tables = target.join(TABLES);
    fs::create_dir_all(&tables).map_err(io_error(&tables))?;
    for entry in fs::read_dir(source.join(TABLES)).map_err(io_error(source))? {
        let table = entry.map_err(io_error(source))?.path();
        let name = table.file_name().unwrap_or_default();
        match fs::hard_link(&table, tables.join(name)) {
            // The last reader of an obsolete table has just gone. The tree does not need it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            linked => linked.map_err(io_error(&table))?,
        }
    }
    for entry in fs::read_dir(source).map_err(io_error(source))? {
        let path = entry.map_err(io_error(source))?.path();
        if path.is_file() {
            let copy = target.join(path.file_name().unwrap_or_default());
            fs::copy(&path, &copy).map_err(io_error(&path))?;
            let file = File::open(&copy).map_err(io_error(&copy))?;
            file.sync_all().map_err(io_error(&copy))?;
        }
    }
    sync_directory(&tables)?;
    sync_directory(target)
}
