//! One page of Query or Scan: up to Limit evaluated items, or 1 MB of them, whichever comes first. What a
//! filter drops has been evaluated all the same.

use super::Context;
use super::get::Wanted;
use crate::capacity::{Report, read_units};
use crate::error::Failure;
use crate::table::{Schema, StoredItem, write_key};
use crate::wire::writer::Writer;
use api::document::Condition;
use api::{Direction, KeyRange, ReadBound, ReadRequest, Selection};
use model::Value;

/// A page ends behind the item that reaches this.
const PAGE_SIZE_BYTES: u64 = 1 << 20;
/// Asked of the database at once.
const READ_SIZE_BYTES: u32 = 1 << 20;

pub struct PageRequest<'a> {
    pub schema: &'a Schema,
    pub range: KeyRange,
    pub direction: Direction,
    pub limit: Option<u32>,
    pub bound: ReadBound,
    pub filter: Option<&'a Condition>,
    /// With Select COUNT no items are kept.
    pub is_count: bool,
}

#[derive(Debug, Default)]
pub struct Page {
    pub items: Vec<StoredItem>,
    pub count: u32,
    pub scanned: u32,
    pub size_bytes: u64,
    /// Where the next page goes on.
    pub last_key: Option<Vec<(String, Value)>>,
}

impl PageRequest<'_> {
    pub async fn read(self, context: &Context<'_>) -> Result<Page, Failure> {
        let mut page = Page::default();
        let mut next =
            (!self.range.is_empty()).then(|| Selection::Ranges(vec![self.range.clone()]));
        while let Some(selection) = next.take() {
            let mut read = ReadRequest::new(self.schema.table.id, selection);
            read.direction = self.direction;
            read.bound = self.bound;
            read.size_bytes_max = READ_SIZE_BYTES;
            read.row_limit = self.limit.map(|limit| limit - page.scanned);
            let response = context.database.read(read).await?;
            for row in response.rows {
                let item = self.schema.item(row)?;
                if self.take(item, &mut page) {
                    return Ok(page);
                }
            }
            next = response.next;
        }
        Ok(page)
    }

    /// Evaluates one item; true when the page ends with it.
    fn take(&self, item: StoredItem, page: &mut Page) -> bool {
        page.scanned += 1;
        page.size_bytes += item.size_bytes();
        let is_last = self.limit == Some(page.scanned) || page.size_bytes >= PAGE_SIZE_BYTES;
        if is_last {
            page.last_key = Some(item.key.clone());
        }
        if self
            .filter
            .is_none_or(|filter| filter.holds_of(&item.attributes()))
        {
            page.count += 1;
            if !self.is_count {
                page.items.push(item);
            }
        }
        is_last
    }
}

impl Page {
    /// The answer of Query or Scan.
    pub fn write(
        &self,
        schema: &Schema,
        wanted: Option<&Wanted>,
        report: Report,
        is_consistent: bool,
    ) -> String {
        let mut writer = Writer::with_capacity(512 + self.size_bytes as usize);
        writer.begin_object();
        writer.key("Count");
        writer.plain(self.count);
        if let Some(wanted) = wanted {
            writer.key("Items");
            writer.begin_array();
            for item in &self.items {
                wanted.write(&mut writer, item);
            }
            writer.end_array();
        }
        writer.key("ScannedCount");
        writer.plain(self.scanned);
        if let Some(key) = &self.last_key {
            writer.key("LastEvaluatedKey");
            write_key(&mut writer, key);
        }
        let units = read_units(self.size_bytes, is_consistent);
        report.write(&mut writer, &schema.name, units);
        writer.end_object();
        writer.finish()
    }
}

/// What Select and the projection of a request come to: whether items are returned at all.
pub fn check_select(
    select: Option<&str>,
    has_projection: bool,
    has_attributes_to_get: bool,
    has_index: bool,
) -> Result<(), String> {
    let invalid = |what: &str| Err(format!("One or more parameter values were invalid: {what}"));
    let parameter = if has_projection {
        "ProjectionExpression"
    } else {
        "AttributesToGet"
    };
    let has_any = has_projection || has_attributes_to_get;
    match select {
        Some("COUNT") if has_any => invalid(&format!(
            "Cannot specify the {parameter} when choosing to get only the Count"
        )),
        Some("ALL_ATTRIBUTES") if has_any => invalid(&format!(
            "Cannot specify the {parameter} when choosing to get ALL_ATTRIBUTES"
        )),
        Some("ALL_PROJECTED_ATTRIBUTES") if has_any => invalid(&format!(
            "Cannot specify the {parameter} when choosing to get ALL_PROJECTED_ATTRIBUTES"
        )),
        Some("ALL_PROJECTED_ATTRIBUTES") if !has_index => {
            invalid("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
        }
        Some("SPECIFIC_ATTRIBUTES") if !has_any => invalid(
            "Must specify the AttributesToGet or ProjectionExpression when choosing to get \
             SPECIFIC_ATTRIBUTES",
        ),
        _ => Ok(()),
    }
}
