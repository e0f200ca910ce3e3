//! What an operation consumes, by DynamoDB's arithmetic: reads in units of 4 KB, eventually consistent ones at
//! half; writes in units of 1 KB, of the item before or after, whichever is larger.

use crate::wire::writer::Writer;

const READ_UNIT_BYTES: u64 = 4096;
const WRITE_UNIT_BYTES: u64 = 1024;

/// ReturnConsumedCapacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    Nothing,
    Total,
    Indexes,
}

impl Report {
    /// The name is checked already.
    pub fn parse(name: Option<&str>) -> Report {
        match name {
            Some("TOTAL") => Report::Total,
            Some("INDEXES") => Report::Indexes,
            _ => Report::Nothing,
        }
    }

    pub fn is_wanted(self) -> bool {
        self != Report::Nothing
    }

    /// Writes the member ConsumedCapacity, if it is wanted.
    pub fn write(self, writer: &mut Writer, table_name: &str, units: f64) {
        if self.is_wanted() {
            writer.key("ConsumedCapacity");
            self.write_entry(writer, table_name, units);
        }
    }

    /// One table's consumption.
    pub fn write_entry(self, writer: &mut Writer, table_name: &str, units: f64) {
        self.write_units(writer, table_name, units, &["CapacityUnits"]);
    }

    /// One table's consumption in a transaction, which says besides whether the units are those of reads or of
    /// writes.
    pub fn write_transaction_entry(
        self,
        writer: &mut Writer,
        table_name: &str,
        units: f64,
        kind: &str,
    ) {
        self.write_units(writer, table_name, units, &["CapacityUnits", kind]);
    }

    fn write_units(self, writer: &mut Writer, table_name: &str, units: f64, names: &[&str]) {
        let write_all = |writer: &mut Writer| {
            for name in names {
                writer.key(name);
                writer.plain(units);
            }
        };
        writer.begin_object();
        write_all(writer);
        writer.key("TableName");
        writer.string(table_name);
        if self == Report::Indexes {
            writer.key("Table");
            writer.begin_object();
            write_all(writer);
            writer.end_object();
        }
        writer.end_object();
    }
}

/// For so many bytes read; at least one unit.
pub fn read_units(size_bytes: u64, is_consistent: bool) -> f64 {
    let units = size_bytes.div_ceil(READ_UNIT_BYTES).max(1) as f64;
    if is_consistent { units } else { units / 2.0 }
}

/// For an item of these sizes before and after; 0 where there is none.
pub fn write_units(before_bytes: u64, after_bytes: u64) -> f64 {
    before_bytes
        .max(after_bytes)
        .div_ceil(WRITE_UNIT_BYTES)
        .max(1) as f64
}
