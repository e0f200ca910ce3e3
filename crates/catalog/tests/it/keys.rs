//! Rows of one partition, and of one parent, lie together, and each key tells whose it is.

use crate::fixture::*;
use catalog::{Partitioning, Table, Type};
use model::Value;
use model::key::{CHILD, HEADER, KeyError, ROW};
use std::sync::Arc;

fn int(value: i64) -> Value {
    Value::Int(value)
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

fn hashed() -> Arc<Table> {
    let columns = vec![
        partition("p", Type::Int),
        partition("q", Type::text()),
        descending(clustering("c", Type::Int)),
        clustering("d", Type::text()),
        regular("v", Type::text()),
    ];
    created(&mut shop(), spec("hashed", Partitioning::Hash, columns))
}

/// Singers, their albums (newest first), and an album's songs.
fn interleaved() -> [Arc<Table>; 3] {
    let mut catalog = shop();
    let singer = clustering("singer", Type::BigInt);
    let album = descending(clustering("album", Type::text()));
    let singers = created(
        &mut catalog,
        spec("singers", Partitioning::Range, vec![singer.clone()]),
    );
    let albums = created(
        &mut catalog,
        child("albums", singers.id, vec![singer.clone(), album.clone()]),
    );
    let columns = vec![singer, album, clustering("song", Type::BigInt)];
    let songs = created(&mut catalog, child("songs", albums.id, columns));
    [singers, albums, songs]
}

#[test]
fn hashed_rows_lie_behind_their_header() {
    let table = hashed();
    let partition = [int(1), text("x")];
    let header = table.header_key(&partition).unwrap();
    let token = table.token(&partition).unwrap();
    assert_eq!(header[..8], (token as u64 ^ 1 << 63).to_be_bytes());
    assert_eq!(header.last(), Some(&HEADER));
    let row = |c, d: &str| {
        table
            .row_key(&[int(1), text("x"), int(c), text(d)])
            .unwrap()
    };
    assert!(header < row(9, "a"));
    assert!(row(9, "a") < row(8, "a"), "descending");
    assert!(row(8, "a") < row(8, "b"));
    assert_eq!(table.header_of(&row(9, "a")), Some(header.clone()));
    assert_eq!(table.header_of(&header), None);
    assert!(table.owns_key(&row(9, "a")));
    assert!(!table.owns_key(&header));
    assert_eq!(
        table.decode_key(&row(9, "a")).unwrap(),
        [int(1), text("x"), int(9), text("a")]
    );
    assert_eq!(table.decode_key(&header).unwrap(), partition);
    let prefix = table.key_prefix(&[int(1), text("x"), int(9)]).unwrap();
    assert!(row(9, "a").starts_with(&prefix));
    assert!(!row(8, "a").starts_with(&prefix));
    assert_eq!(table.key_prefix(&[int(1)]), Err(KeyError::Malformed));
    assert_eq!(table.row_key(&partition), Err(KeyError::Malformed));
}

#[test]
fn children_lie_behind_their_parents() {
    let [singers, albums, songs] = interleaved();
    let singer = singers.row_key(&[int(1)]).unwrap();
    let next_singer = singers.row_key(&[int(2)]).unwrap();
    let album = albums.row_key(&[int(1), text("b")]).unwrap();
    let later_album = albums.row_key(&[int(1), text("a")]).unwrap();
    let song = songs.row_key(&[int(1), text("b"), int(7)]).unwrap();
    let keys = [&singer, &album, &song, &later_album, &next_singer];
    assert!(keys.is_sorted(), "{keys:?}");

    for (table, owned) in [
        (&singers, vec![&singer, &next_singer]),
        (&albums, vec![&album, &later_album]),
        (&songs, vec![&song]),
    ] {
        for key in keys {
            assert_eq!(
                table.owns_key(key),
                owned.contains(&key),
                "{}",
                table.name()
            );
        }
    }
    assert_eq!(
        songs.decode_key(&song).unwrap(),
        [int(1), text("b"), int(7)]
    );
    assert_eq!(songs.decode_key(&album), Err(KeyError::Malformed));
    assert_eq!(songs.parent_key(&song), Some(album.clone()));
    assert_eq!(albums.parent_key(&album), Some(singer.clone()));
    assert_eq!(albums.parent_key(&song), None);
    assert_eq!(singers.parent_key(&singer), None);
}

#[test]
fn a_prefix_is_as_long_as_its_values_allow() {
    let [singers, albums, songs] = interleaved();
    assert_eq!(songs.key_prefix(&[]).unwrap(), []);
    let of_singer = albums.key_prefix(&[int(1)]).unwrap();
    assert_eq!(of_singer[of_singer.len() - 9], CHILD);
    assert_eq!(of_singer[of_singer.len() - 8..], albums.id.0.to_be_bytes());
    let album = albums.row_key(&[int(1), text("b")]).unwrap();
    assert!(album.starts_with(&of_singer));
    assert_eq!(albums.key_prefix(&[int(1), text("b")]), Ok(album));
    assert_eq!(singers.key_prefix(&[int(1)]).unwrap().last(), Some(&ROW));
    assert!(singers.key_prefix(&[int(1), int(2)]).is_err());
}

#[test]
fn a_table_may_have_one_row_and_children() {
    let mut catalog = shop();
    let root = created(&mut catalog, spec("root", Partitioning::Range, vec![]));
    let only = created(&mut catalog, child("only", root.id, vec![]));
    let leaf = created(
        &mut catalog,
        child("leaf", only.id, vec![clustering("k", Type::BigInt)]),
    );
    let root_key = root.row_key(&[]).unwrap();
    assert_eq!(root_key, [ROW]);
    let only_key = only.row_key(&[]).unwrap();
    let leaf_key = leaf.row_key(&[int(1)]).unwrap();
    assert_eq!(leaf.parent_key(&leaf_key), Some(only_key.clone()));
    assert_eq!(only.parent_key(&only_key), Some(root_key));
}

#[test]
fn foreign_bytes_are_nobodys() {
    let [singers, albums, songs] = interleaved();
    let hashed = hashed();
    for key in [&[][..], &[ROW], &[0xFF; 40], &[2; 9], &[0; 30]] {
        for table in [&singers, &albums, &songs, &hashed] {
            assert!(!table.owns_key(key));
            assert!(table.decode_key(key).is_err());
            assert_eq!(table.parent_key(key), None);
        }
    }
}

#[test]
fn tablets_are_cut_between_partitions_and_between_root_rows() {
    let table = hashed();
    let row = table
        .row_key(&[int(1), text("x"), int(9), text("a")])
        .unwrap();
    assert_eq!(table.boundary(&row), Some(&row[..8]));
    assert_eq!(table.boundary(&row[..8]), Some(&row[..8]));
    assert_eq!(table.boundary(&row[..7]), None);
    let [singers, albums, songs] = interleaved();
    let singer = singers.row_key(&[int(7)]).unwrap();
    let cut = singers.boundary(&singer).unwrap();
    assert_eq!(cut, &singer[..singer.len() - 1]);
    assert_eq!(singers.boundary(cut), Some(cut));
    for key in [
        albums.row_key(&[int(7), text("a")]).unwrap(),
        songs.row_key(&[int(7), text("a"), int(1)]).unwrap(),
    ] {
        assert_eq!(singers.boundary(&key), Some(cut));
        assert!(cut < key.as_slice() && cut < singer.as_slice());
    }
    let before = songs.row_key(&[int(6), text("z"), int(9)]).unwrap();
    assert!(before.as_slice() < cut);
}
