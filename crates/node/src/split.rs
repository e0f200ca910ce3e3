//! Splitting a tablet, as an operator asks for it.

use crate::core::Core;
use api::Error;
use model::TableId;

pub(crate) async fn split(_core: &Core, _table: TableId, _key: Vec<u8>) -> Result<(), Error> {
    Err(Error::unsupported(
        "splitting tablets is not built yet: a range-partitioned table keeps one tablet",
    ))
}
