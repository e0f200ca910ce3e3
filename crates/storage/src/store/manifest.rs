//! Checks a tree's manifest before the library reads it, which trusts it: a wrong bit there would change the
//! order of tables without a word.
//!
//! `current` names the newest manifest `vN` and holds its checksum: `N` (8 bytes, little-endian), XXH3 of 128
//! bits (16 bytes, little-endian), 0.

use super::io_error;
use super::stores::TABLES;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use world::StoreError;
use xxhash_rust::xxh3::xxh3_128;

const CURRENT: &str = "current";

/// Fails on a tree whose manifest is missing or damaged. A folder where none was begun, or where a crash cut that
/// short, is as good as empty.
pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("{}: {what}", folder.display()));
    let current = match fs::read(folder.join(CURRENT)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match has_tables(folder)? {
                true => Err(corrupt("there are tables, and no manifest")),
                false => Ok(()),
            };
        }
        current => current.map_err(io_error(folder))?,
    };
    let (number, rest) = current
        .split_first_chunk::<8>()
        .ok_or_else(|| corrupt("the name of the manifest is cut short"))?;
    let checksum: &[u8; 16] = rest
        .first_chunk()
        .ok_or_else(|| corrupt("the checksum of the manifest is cut short"))?;
    let name = format!("v{}", u64::from_le_bytes(*number));
    let manifest = match fs::read(folder.join(&name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(corrupt(&format!("the manifest {name} is missing")));
        }
        manifest => manifest.map_err(io_error(folder))?,
    };
    if xxh3_128(&manifest) != u128::from_le_bytes(*checksum) {
        return Err(corrupt(&format!(
            "the manifest {name} does not match its checksum"
        )));
    }
    Ok(())
}

fn has_tables(folder: &Path) -> Result<bool, StoreError> {
    match fs::read_dir(folder.join(TABLES)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(folder)(error)),
        Ok(mut tables) => Ok(tables.next().is_some()),
    }
}
