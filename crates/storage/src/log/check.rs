//! Reads through the log's files before they are opened, and tells a torn write from damage.
//!
//! Each write is synced before the next one begins, and a file is closed and synced before the next one is
//! begun. So a crash can leave at most the last record of the last file bad, with nothing valid after it: that
//! one was never acknowledged and is cut off. A bad record anywhere else was once good: then something has
//! damaged the files, and opening them would silently lose what was acknowledged. The log stays closed and says
//! what to do.
//!
//! The format is `raft-engine`'s, version 2; `docs/formats/log.md` has its byte table.

use crate::OpenError;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// The magic bytes, the version and the alignment.
const FILE_HEADER_BYTES: usize = MAGIC.len() + 8 + 8;
const FORMAT_VERSION: u64 = 2;
const RECORD_HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// Digits of the sequence number that a file's name begins with.
const SEQUENCE_DIGITS: usize = 16;

/// A write that a crash had cut short, and that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub file: PathBuf,
    /// Where the bad record began.
    pub offset: u64,
    pub bytes: u64,
}

/// Checks all files of a log. Cuts torn tails off, which it returns; fails on damage, with nothing changed.
pub(super) fn check(directory: &Path) -> Result<Vec<TornTail>, OpenError> {
    let mut torn = Vec::new();
    for suffix in [".raftlog", ".rewrite"] {
        let files = list(directory, suffix)?;
        for pair in files.windows(2) {
            if pair[0].0 + 1 != pair[1].0 {
                return Err(OpenError::Corrupt(format!(
                    "between {} and {} a log file is missing. {ADVICE}",
                    pair[0].1.display(),
                    pair[1].1.display()
                )));
            }
        }
        let last = files.len().saturating_sub(1);
        for (position, (sequence, path)) in files.iter().enumerate() {
            if let Some(tail) = check_file(path, *sequence, position == last)? {
                torn.push(tail);
            }
        }
    }
    for (tail, _) in &torn {
        cut(directory, tail)?;
    }
    let torn = torn.into_iter().filter(|(_, unused)| !unused);
    Ok(torn.map(|(tail, _)| tail).collect())
}

const ADVICE: &str = "This is damage, not a torn write: nothing was changed. Either bring the file back from a \
                      copy of the disk, or move this node's data directory away and let the node join the \
                      cluster anew: its replicas are then rebuilt from the others";

fn list(directory: &Path, suffix: &str) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries.map_err(OpenError::io(directory))?,
    };
    for entry in entries {
        let path = entry.map_err(OpenError::io(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let digits = name.and_then(|name| name.strip_suffix(suffix));
        let digits = digits.filter(|digits| digits.len() == SEQUENCE_DIGITS);
        if let Some(sequence) = digits.and_then(|digits| digits.parse().ok()) {
            files.push((sequence, path));
        }
    }
    files.sort();
    Ok(files)
}

/// What is to be cut off the end of a file, and whether that is mere space that was allocated ahead.
fn check_file(
    path: &Path,
    sequence: u64,
    is_last: bool,
) -> Result<Option<(TornTail, bool)>, OpenError> {
    let content = fs::read(path).map_err(OpenError::io(path))?;
    let begin = if header_is_good(&content) {
        FILE_HEADER_BYTES
    } else {
        0
    };
    let mut offset = begin;
    if begin > 0 {
        while let Some(length) = record_at(&content, offset, sequence) {
            offset += length;
        }
    }
    if begin > 0 && offset == content.len() {
        return Ok(None);
    }
    // Zeros up to the end are no record at all.
    let unused = begin > 0 && content[offset..].iter().all(|byte| *byte == 0);
    let next = match unused {
        true => None,
        false => {
            (offset + 1..content.len()).find(|next| record_at(&content, *next, sequence).is_some())
        }
    };
    match next {
        Some(next) => Err(OpenError::Corrupt(format!(
            "{}: the record at byte {offset} is bad, and a good one follows at byte {next}. {ADVICE}",
            path.display()
        ))),
        None if !is_last => Err(OpenError::Corrupt(format!(
            "{}: the record at byte {offset} is bad, and a later file exists. {ADVICE}",
            path.display()
        ))),
        None => {
            let tail = TornTail {
                file: path.to_owned(),
                offset: offset as u64,
                bytes: (content.len() - offset) as u64,
            };
            Ok(Some((tail, unused)))
        }
    }
}

fn header_is_good(content: &[u8]) -> bool {
    let Some(rest) = content.strip_prefix(MAGIC) else {
        return false;
    };
    let fields = rest.first_chunk::<8>().zip(rest.get(8..16));
    fields.is_some_and(|(version, alignment)| {
        u64::from_be_bytes(*version) == FORMAT_VERSION && alignment.iter().all(|byte| *byte == 0)
    })
}

/// The length of the record at `offset`, if there is a whole one with both checksums right.
fn record_at(content: &[u8], offset: usize, sequence: u64) -> Option<usize> {
    let record = content.get(offset..)?;
    let length_and_type = u64::from_be_bytes(*record.first_chunk()?);
    let length = usize::try_from(length_and_type >> 8).ok()?;
    let footer = usize::try_from(u64::from_be_bytes(*record.get(8..)?.first_chunk()?)).ok()?;
    // No checksum covers this byte: nothing is ever written compressed.
    let is_plain = length_and_type & 0xff == 0;
    if !is_plain || footer < RECORD_HEADER_BYTES || footer >= length || length > record.len() {
        return None;
    }
    // The file's number is mixed into this checksum, so that a record is good in its own file only.
    let signature = sequence as u32;
    if !checksum_is_good(&record[footer..length], signature) {
        return None;
    }
    let entries = &record[RECORD_HEADER_BYTES..footer];
    let good = entries.is_empty() || checksum_is_good(entries, 0);
    good.then_some(length)
}

fn checksum_is_good(bytes: &[u8], signature: u32) -> bool {
    let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return false;
    };
    !content.is_empty() && crc32fast::hash(content) ^ signature == u32::from_le_bytes(*checksum)
}

fn cut(directory: &Path, tail: &TornTail) -> Result<(), OpenError> {
    let failed = OpenError::io(&tail.file);
    if tail.offset < FILE_HEADER_BYTES as u64 {
        // The file had just been begun.
        fs::remove_file(&tail.file).map_err(failed)?;
        return sync_directory(directory);
    }
    let file = OpenOptions::new().write(true).open(&tail.file);
    let file = file.map_err(&failed)?;
    file.set_len(tail.offset).map_err(&failed)?;
    file.sync_all().map_err(&failed)
}

pub(crate) fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(OpenError::io(directory))
}
