//! Answers: the bodies of what this door sends (section 4.2).

use super::frame::{begin, finish};
use super::wire::{
    put_bytes, put_inet, put_int, put_length, put_short, put_short_bytes, put_string,
    put_string_list,
};
use super::{Opcode, Version, flag};
use crate::error::Error;
use crate::types::option::put_type;
use model::Type;
use std::net::IpAddr;

/// Whom an answer goes to, and in which version.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub version: Version,
    pub stream: i16,
}

impl Reply {
    pub fn error(self, error: &Error) -> Vec<u8> {
        let mut frame = begin(self.version, 0, self.stream, Opcode::Error, 128);
        error.encode(self.version, &mut frame);
        finish(&mut frame);
        frame
    }

    pub fn ready(self) -> Vec<u8> {
        begin(self.version, 0, self.stream, Opcode::Ready, 0)
    }

    pub fn supported(self, options: &[(&str, &[&str])]) -> Vec<u8> {
        let mut frame = begin(self.version, 0, self.stream, Opcode::Supported, 128);
        put_short(&mut frame, options.len() as u16);
        for (name, values) in options {
            put_string(&mut frame, name);
            put_string_list(&mut frame, values.iter().copied());
        }
        finish(&mut frame);
        frame
    }

    /// Begins a RESULT frame, with warnings if there are any and the version has them.
    pub fn result(self, kind: ResultKind, warnings: &[String], capacity: usize) -> Vec<u8> {
        let has_warnings = !warnings.is_empty() && self.version >= Version::V4;
        let flags = if has_warnings { flag::WARNING } else { 0 };
        let mut frame = begin(self.version, flags, self.stream, Opcode::Result, capacity);
        if has_warnings {
            put_string_list(&mut frame, warnings.iter().map(String::as_str));
        }
        put_int(&mut frame, kind as i32);
        frame
    }

    pub fn void(self, warnings: &[String]) -> Vec<u8> {
        let mut frame = self.result(ResultKind::Void, warnings, 4);
        finish(&mut frame);
        frame
    }

    pub fn set_keyspace(self, keyspace: &str) -> Vec<u8> {
        let mut frame = self.result(ResultKind::SetKeyspace, &[], 64);
        put_string(&mut frame, keyspace);
        finish(&mut frame);
        frame
    }

    pub fn schema_change(self, change: &SchemaChange, warnings: &[String]) -> Vec<u8> {
        let mut frame = self.result(ResultKind::SchemaChange, warnings, 64);
        change.encode(&mut frame);
        finish(&mut frame);
        frame
    }
}

/// Section 4.2.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    Void = 1,
    Rows = 2,
    SetKeyspace = 3,
    Prepared = 4,
    SchemaChange = 5,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaChange {
    pub change: ChangeKind,
    pub keyspace: String,
    pub target: ChangeTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Created,
    Updated,
    Dropped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeTarget {
    Keyspace,
    Table(String),
    Type(String),
}

impl SchemaChange {
    fn encode(&self, out: &mut Vec<u8>) {
        put_string(
            out,
            match self.change {
                ChangeKind::Created => "CREATED",
                ChangeKind::Updated => "UPDATED",
                ChangeKind::Dropped => "DROPPED",
            },
        );
        let (target, name) = match &self.target {
            ChangeTarget::Keyspace => ("KEYSPACE", None),
            ChangeTarget::Table(name) => ("TABLE", Some(name)),
            ChangeTarget::Type(name) => ("TYPE", Some(name)),
        };
        put_string(out, target);
        put_string(out, &self.keyspace);
        if let Some(name) = name {
            put_string(out, name);
        }
    }
}

/// Section 4.2.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Topology {
        is_new: bool,
        address: IpAddr,
        port: u16,
    },
    Status {
        is_up: bool,
        address: IpAddr,
        port: u16,
    },
    Schema(SchemaChange),
}

impl Event {
    /// An EVENT frame: its stream is -1.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut frame = begin(version, 0, -1, Opcode::Event, 64);
        match self {
            Event::Topology {
                is_new,
                address,
                port,
            } => {
                put_string(&mut frame, "TOPOLOGY_CHANGE");
                put_string(
                    &mut frame,
                    if *is_new { "NEW_NODE" } else { "REMOVED_NODE" },
                );
                put_inet(&mut frame, *address, *port);
            }
            Event::Status {
                is_up,
                address,
                port,
            } => {
                put_string(&mut frame, "STATUS_CHANGE");
                put_string(&mut frame, if *is_up { "UP" } else { "DOWN" });
                put_inet(&mut frame, *address, *port);
            }
            Event::Schema(change) => {
                put_string(&mut frame, "SCHEMA_CHANGE");
                change.encode(&mut frame);
            }
        }
        finish(&mut frame);
        frame
    }
}

/// A column of a result, or a bind marker.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnSpec {
    pub name: String,
    pub kind: Type,
}

/// What a result's or a statement's columns belong to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowsMetadata {
    pub keyspace: String,
    pub table: String,
    pub columns: Vec<ColumnSpec>,
}

/// How the metadata of one answer are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetadataOptions<'a> {
    pub skip: bool,
    pub paging_state: Option<&'a [u8]>,
    /// v5: the client's metadata are stale, these are new.
    pub changed_id: Option<&'a [u8]>,
}

mod metadata_flag {
    pub const GLOBAL_TABLES_SPEC: i32 = 0x0001;
    pub const HAS_MORE_PAGES: i32 = 0x0002;
    pub const NO_METADATA: i32 = 0x0004;
    pub const METADATA_CHANGED: i32 = 0x0008;
}

impl RowsMetadata {
    /// <metadata> of section 4.2.5.2.
    pub fn encode(&self, version: Version, options: MetadataOptions<'_>, out: &mut Vec<u8>) {
        let skip = options.skip && options.changed_id.is_none();
        let mut flags = 0;
        if skip {
            flags |= metadata_flag::NO_METADATA;
        } else {
            flags |= metadata_flag::GLOBAL_TABLES_SPEC;
        }
        if options.paging_state.is_some() {
            flags |= metadata_flag::HAS_MORE_PAGES;
        }
        if options.changed_id.is_some() {
            flags |= metadata_flag::METADATA_CHANGED;
        }
        put_int(out, flags);
        put_length(out, self.columns.len());
        if let Some(state) = options.paging_state {
            put_bytes(out, state);
        }
        if let Some(id) = options.changed_id {
            put_short_bytes(out, id);
        }
        if !skip {
            self.put_columns(version, out);
        }
    }

    fn put_columns(&self, version: Version, out: &mut Vec<u8>) {
        put_string(out, &self.keyspace);
        put_string(out, &self.table);
        for column in &self.columns {
            put_string(out, &column.name);
            put_type(out, &column.kind, &self.keyspace, version);
        }
    }

    /// <metadata> of section 4.2.5.4: the bind markers of a prepared statement.
    pub fn encode_markers(&self, version: Version, key_positions: &[u16], out: &mut Vec<u8>) {
        let has_table = !self.columns.is_empty();
        put_int(
            out,
            if has_table {
                metadata_flag::GLOBAL_TABLES_SPEC
            } else {
                0
            },
        );
        put_length(out, self.columns.len());
        if version >= Version::V4 {
            put_length(out, key_positions.len());
            for position in key_positions {
                put_short(out, *position);
            }
        }
        if has_table {
            self.put_columns(version, out);
        }
    }

    /// <metadata> of a statement that yields no rows.
    pub fn encode_none(out: &mut Vec<u8>) {
        put_int(out, metadata_flag::NO_METADATA);
        put_int(out, 0);
    }
}
