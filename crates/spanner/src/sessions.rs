//! Sessions: names that a client asks under. They hold nothing but their database; transactions are beside
//! them. Bounded, and forgotten after an hour without use (multiplexed ones after 28 days, as Spanner has it).
//!
//! A name says by a checksum that some node of the cluster made it. So a node that does not know it, having started
//! since or being another, takes it up instead of sending the client away; only labels and roles are lost, and a
//! deletion is known to the node that was asked for it alone.

use crate::names::{DatabaseName, database_not_found, find_namespace, page};
use crate::{Door, wire};
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::{Timestamp, murmur3};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tonic::Status;

pub const SESSIONS_MAX: usize = 10_000;
const BATCH_MAX: i32 = 1_000;
const IDLE_MICROS_MAX: i64 = 3_600 * 1_000_000;
const MULTIPLEXED_IDLE_MICROS_MAX: i64 = 28 * 24 * IDLE_MICROS_MAX;

#[derive(Clone, Debug)]
pub struct Session {
    pub name: String,
    pub namespace: String,
    pub multiplexed: bool,
    labels: BTreeMap<String, String>,
    role: String,
    created: Timestamp,
    last_use: Timestamp,
}

impl Session {
    fn is_expired(&self, now: Timestamp) -> bool {
        let idle = match self.multiplexed {
            true => MULTIPLEXED_IDLE_MICROS_MAX,
            false => IDLE_MICROS_MAX,
        };
        now.0.saturating_sub(self.last_use.0) > idle
    }

    fn describe(&self) -> pb::Session {
        pb::Session {
            name: self.name.clone(),
            labels: self.labels.clone().into_iter().collect(),
            create_time: Some(wire::timestamp(self.created)),
            approximate_last_use_time: Some(wire::timestamp(self.last_use)),
            creator_role: self.role.clone(),
            multiplexed: self.multiplexed,
        }
    }
}

#[derive(Default)]
pub struct Sessions {
    by_name: Mutex<BTreeMap<String, Session>>,
    /// The last names that were deleted here: these are not taken up again.
    deleted: Mutex<VecDeque<String>>,
}

const DELETED_MAX: usize = 10_000;
const MULTIPLEXED: char = 'm';
const PLAIN: char = 's';

/// A fresh id: what kind it is, a random part, and the checksum of both and of the database.
fn fresh_id(database: &str, multiplexed: bool) -> String {
    let kind = if multiplexed { MULTIPLEXED } else { PLAIN };
    let body = format!("{kind}{}", uuid::Uuid::new_v4().simple());
    let sum = checksum(database, &body);
    format!("{body}{sum}")
}

fn checksum(database: &str, body: &str) -> String {
    format!(
        "{:016x}",
        murmur3::token(format!("{database}/{body}").as_bytes())
    )
}

/// Whether a name was made by `fresh_id`, here or elsewhere: its database, and whether it is multiplexed.
fn parse_id(name: &str) -> Option<(&str, bool)> {
    let (database, id) = name.rsplit_once("/sessions/")?;
    let (body, sum) = id.split_at_checked(id.len().checked_sub(16)?)?;
    (checksum(database, body) == sum).then_some((database, body.starts_with(MULTIPLEXED)))
}

impl Sessions {
    /// The session, if it is alive and so is its database; counts as a use.
    pub fn find(&self, door: &Door, name: &str) -> Result<Session, Status> {
        let now = door.database.now().latest;
        self.take_up(door, name)?;
        let mut sessions = self.by_name.lock();
        let not_found = || Status::not_found(format!("Session not found: {name}"));
        let session = sessions.get_mut(name).ok_or_else(not_found)?;
        if session.is_expired(now) {
            sessions.remove(name);
            door.metrics.sessions.set(sessions.len() as i64);
            return Err(not_found());
        }
        session.last_use = now;
        let session = session.clone();
        let is_there = door
            .database
            .catalog()
            .namespaces
            .contains_key(&session.namespace);
        match is_there {
            true => Ok(session),
            false => {
                let database = name.split("/sessions/").next().unwrap_or_default();
                Err(database_not_found(database))
            }
        }
    }

    /// Makes a session that another node, or this one in a former life, has named known here.
    fn take_up(&self, door: &Door, name: &str) -> Result<(), Status> {
        if self.by_name.lock().contains_key(name) {
            return Ok(());
        }
        let Some((database, multiplexed)) = parse_id(name) else {
            return Ok(());
        };
        if self.deleted.lock().iter().any(|deleted| deleted == name) {
            return Ok(());
        }
        let template = pb::Session {
            multiplexed,
            ..Default::default()
        };
        let session = Session {
            name: name.to_owned(),
            ..make(door, database, &template)?
        };
        self.add(door, vec![session])
    }

    fn forget(&self, door: &Door, name: &str) {
        let mut deleted = self.deleted.lock();
        if deleted.len() >= DELETED_MAX {
            deleted.pop_front();
        }
        deleted.push_back(name.to_owned());
        drop(deleted);
        let mut sessions = self.by_name.lock();
        sessions.remove(name);
        door.metrics.sessions.set(sessions.len() as i64);
    }

    fn add(&self, door: &Door, made: Vec<Session>) -> Result<(), Status> {
        let now = door.database.now().latest;
        let mut sessions = self.by_name.lock();
        if sessions.len() + made.len() > SESSIONS_MAX {
            sessions.retain(|_, session| !session.is_expired(now));
        }
        if sessions.len() + made.len() > SESSIONS_MAX {
            return Err(Status::resource_exhausted(format!(
                "this node has {SESSIONS_MAX} sessions already"
            )));
        }
        sessions.extend(
            made.into_iter()
                .map(|session| (session.name.clone(), session)),
        );
        door.metrics.sessions.set(sessions.len() as i64);
        Ok(())
    }
}

fn make(door: &Door, database: &str, template: &pb::Session) -> Result<Session, Status> {
    let name = DatabaseName::parse(database)?;
    let catalog = door.database.catalog();
    let namespace = find_namespace(&catalog, &name).ok_or_else(|| database_not_found(database))?;
    let now = door.database.now().latest;
    Ok(Session {
        name: format!(
            "{database}/sessions/{}",
            fresh_id(database, template.multiplexed)
        ),
        namespace: namespace.name.clone(),
        multiplexed: template.multiplexed,
        labels: template.labels.clone().into_iter().collect(),
        role: template.creator_role.clone(),
        created: now,
        last_use: now,
    })
}

pub async fn create(
    door: Arc<Door>,
    request: pb::CreateSessionRequest,
) -> Result<pb::Session, Status> {
    let template = request.session.unwrap_or_default();
    let session = make(&door, &request.database, &template)?;
    door.sessions.add(&door, vec![session.clone()])?;
    Ok(session.describe())
}

pub async fn batch_create(
    door: Arc<Door>,
    request: pb::BatchCreateSessionsRequest,
) -> Result<pb::BatchCreateSessionsResponse, Status> {
    if !(1..=BATCH_MAX).contains(&request.session_count) {
        return Err(Status::invalid_argument(format!(
            "session_count must be between 1 and {BATCH_MAX}"
        )));
    }
    let template = request.session_template.unwrap_or_default();
    let made: Result<Vec<Session>, Status> = (0..request.session_count)
        .map(|_| make(&door, &request.database, &template))
        .collect();
    let made = made?;
    door.sessions.add(&door, made.clone())?;
    Ok(pb::BatchCreateSessionsResponse {
        session: made.iter().map(Session::describe).collect(),
    })
}

pub async fn get(door: Arc<Door>, request: pb::GetSessionRequest) -> Result<pb::Session, Status> {
    Ok(door.sessions.find(&door, &request.name)?.describe())
}

pub async fn list(
    door: Arc<Door>,
    request: pb::ListSessionsRequest,
) -> Result<pb::ListSessionsResponse, Status> {
    let database = DatabaseName::parse(&request.database)?;
    if find_namespace(&door.database.catalog(), &database).is_none() {
        return Err(database_not_found(&request.database));
    }
    let prefix = format!("{}/sessions/", request.database);
    let now = door.database.now().latest;
    let found: Vec<(String, pb::Session)> = door
        .sessions
        .by_name
        .lock()
        .range(prefix.clone()..)
        .take_while(|(name, _)| name.starts_with(&prefix))
        .filter(|(_, session)| !session.is_expired(now) && matches_filter(session, &request.filter))
        .map(|(name, session)| (name.clone(), session.describe()))
        .collect();
    let (sessions, next_page_token) = page(found, request.page_size, &request.page_token);
    Ok(pb::ListSessionsResponse {
        sessions,
        next_page_token,
    })
}

/// `labels.key:value` or `labels.key:*`, as the service documents.
fn matches_filter(session: &Session, filter: &str) -> bool {
    filter.split_whitespace().all(|part| {
        let Some((key, value)) = part
            .strip_prefix("labels.")
            .and_then(|rest| rest.split_once(':'))
        else {
            return false;
        };
        session
            .labels
            .get(key)
            .is_some_and(|own| value == "*" || own == value.trim_matches('"'))
    })
}

pub async fn delete(door: Arc<Door>, request: pb::DeleteSessionRequest) -> Result<(), Status> {
    door.sessions.forget(&door, &request.name);
    door.transactions.forget_session(&door, &request.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{fresh_id, parse_id};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_name_is_refused_or_read(name in "(projects/p/instances/i)?[/a-z]{0,9}(/sessions/)?[ms]?\\PC{0,60}") {
            prop_assert_eq!(parse_id(&name), None);
        }

        #[test]
        fn a_name_that_was_changed_was_not_made_here(at in any::<prop::sample::Index>(), character in any::<char>()) {
            let database = "projects/p/instances/i/databases/d";
            let name = format!("{database}/sessions/{}", fresh_id(database, true));
            let mut characters: Vec<char> = name.chars().collect();
            let at = at.index(characters.len());
            prop_assume!(characters[at] != character);
            characters[at] = character;
            let changed = String::from_iter(characters);
            prop_assert_eq!(parse_id(&changed), None);
        }
    }

    #[test]
    fn a_name_says_that_it_was_made_here() {
        let database = "projects/p/instances/i/databases/d";
        for multiplexed in [false, true] {
            let name = format!("{database}/sessions/{}", fresh_id(database, multiplexed));
            assert_eq!(parse_id(&name), Some((database, multiplexed)));
            assert_eq!(parse_id(&name.replace("databases/d", "databases/e")), None);
            assert_eq!(parse_id(&name[..name.len() - 1]), None);
        }
        assert_eq!(
            parse_id("projects/p/instances/i/databases/d/sessions/x"),
            None
        );
        assert_eq!(parse_id("é"), None);
    }
}
