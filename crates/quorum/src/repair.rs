//! Repair: replicas of a tablet compare what they hold, range by range, and bring each other what one has and another
//! lacks. Here is what is pure about it: Merkle trees, and the record of what was repaired when. A session's steps are the
//! coordinator's (`coordinator::repair`), scanning is the replica's (`replica::repair`).

pub(crate) mod marks;
pub(crate) mod tree;
