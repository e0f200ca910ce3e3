//! The files of the log: the library's own, but for how space is allocated ahead of what is written.
//!
//! Space from `fallocate` is marked as unwritten, and the first write into it changes the file system's metadata: each
//! sync then waits for its journal too. Zeros that were written are overwritten in place. On ext4 a sync of a small
//! record takes 3.4 ms in the one case and 0.08 ms in the other (median of 1,000, 200 bytes each, on the disk that this
//! was measured on); writing the zeros costs one larger sync every two MiB. Readers cannot tell the two apart.

use raft_engine::env::{DefaultFileSystem, FileSystem, Permission, WriteExt};
use std::io::{Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

/// The library's engine over these files.
pub(super) type Engine = raft_engine::Engine<ZeroedFiles>;

type Handle = <DefaultFileSystem as FileSystem>::Handle;
type Reader = <DefaultFileSystem as FileSystem>::Reader;

const ZEROS: [u8; 64 << 10] = [0; 64 << 10];

pub(super) struct ZeroedFiles;

pub(super) struct ZeroedWriter(<DefaultFileSystem as FileSystem>::Writer);

impl FileSystem for ZeroedFiles {
    type Handle = Handle;
    type Reader = Reader;
    type Writer = ZeroedWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<Handle> {
        DefaultFileSystem.create(path)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> Result<Handle> {
        DefaultFileSystem.open(path, permission)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<Handle>) -> Result<Reader> {
        DefaultFileSystem.new_reader(handle)
    }

    fn new_writer(&self, handle: Arc<Handle>) -> Result<ZeroedWriter> {
        DefaultFileSystem.new_writer(handle).map(ZeroedWriter)
    }
}

impl Write for ZeroedWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}

impl Seek for ZeroedWriter {
    fn seek(&mut self, position: SeekFrom) -> Result<u64> {
        self.0.seek(position)
    }
}

impl WriteExt for ZeroedWriter {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        self.0.truncate(offset)
    }

    /// Writes zeros, and leaves the position where it was.
    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        let position = self.0.stream_position()?;
        self.0.seek(SeekFrom::Start(offset as u64))?;
        let mut left = size;
        let mut outcome = Ok(());
        while left > 0 && outcome.is_ok() {
            let some = left.min(ZEROS.len());
            outcome = self.0.write_all(&ZEROS[..some]);
            left -= some;
        }
        self.0.seek(SeekFrom::Start(position))?;
        outcome
    }
}
