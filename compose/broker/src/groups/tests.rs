//! The rebalance protocol without clock and sockets.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot::Receiver;

use super::group::{Group, State};
use super::member::{Join, JoinReply, Joined};

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

fn join(id: &str, protocols: &[&str]) -> Join {
    Join {
        member_id: id.to_owned(),
        instance: None,
        client_id: "client".to_owned(),
        host: "/127.0.0.1".to_owned(),
        session: SESSION,
        rebalance: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: protocols
            .iter()
            .map(|name| ((*name).to_owned(), Bytes::from_static(b"topics")))
            .collect(),
        asks_for_id: false,
        can_skip: false,
    }
}

fn static_join(id: &str, instance: &str) -> Join {
    Join {
        instance: Some(instance.to_owned()),
        ..join(id, &["range"])
    }
}

fn enter(group: &mut Group, join: &Join, now: Instant) -> Receiver<JoinReply> {
    group.join(join, Duration::ZERO, 10, now)
}

fn joined(mut reply: Receiver<JoinReply>) -> (String, Joined) {
    let (id, outcome) = reply.try_recv().unwrap();
    (id, outcome.unwrap())
}

fn refused(mut reply: Receiver<JoinReply>) -> ResponseError {
    reply.try_recv().unwrap().1.unwrap_err()
}

/// A stable group of two; answers the ids of leader and follower.
fn pair(now: Instant) -> (Group, String, String) {
    let mut group = Group::new(now);
    let (leader, _) = joined(enter(&mut group, &join("", &["range", "roundrobin"]), now));
    let second = enter(&mut group, &join("", &["roundrobin", "range"]), now);
    assert_eq!(
        group.heartbeat(&leader, now),
        Err(ResponseError::RebalanceInProgress)
    );
    let again = enter(&mut group, &join(&leader, &["range", "roundrobin"]), now);
    let (_, as_leader) = joined(again);
    let (follower, as_follower) = joined(second);
    assert_eq!(
        (
            as_leader.generation,
            as_leader.members.len(),
            as_follower.members.len()
        ),
        (2, 2, 0)
    );
    assert_eq!(as_follower.leader, leader);
    let mut waiting = group.sync(&follower, HashMap::new(), now);
    assert!(waiting.try_recv().is_err());
    let assignments = HashMap::from([
        (leader.clone(), Bytes::from_static(b"one")),
        (follower.clone(), Bytes::from_static(b"two")),
    ]);
    let mut own = group.sync(&leader, assignments, now);
    assert_eq!(own.try_recv().unwrap(), Ok(Bytes::from_static(b"one")));
    assert_eq!(waiting.try_recv().unwrap(), Ok(Bytes::from_static(b"two")));
    assert_eq!(group.state, State::Stable);
    (group, leader, follower)
}

#[test]
fn two_members_share_a_generation_and_get_their_assignments() {
    let now = Instant::now();
    let (mut group, leader, follower) = pair(now);
    assert_eq!(group.heartbeat(&leader, now), Ok(()));
    assert_eq!(
        group.identify(&follower, None, Some(1)),
        Err(ResponseError::IllegalGeneration)
    );
    // A follower that joins again as it was disturbs nobody; the leader does.
    let (_, same) = joined(enter(
        &mut group,
        &join(&follower, &["roundrobin", "range"]),
        now,
    ));
    assert_eq!((same.generation, group.state), (2, State::Stable));
    let _waiting = enter(&mut group, &join(&leader, &["range", "roundrobin"]), now);
    assert_eq!(group.state, State::PreparingRebalance);
}

#[test]
fn a_silent_member_is_put_out_after_its_session() {
    let now = Instant::now();
    let (mut group, leader, follower) = pair(now);
    let later = now + SESSION - Duration::from_millis(1);
    assert_eq!(group.heartbeat(&leader, later), Ok(()));
    group.tick(later);
    assert_eq!(group.members.len(), 2);
    let late = now + SESSION;
    group.tick(late);
    assert!(!group.members.contains_key(&follower));
    assert_eq!(
        group.heartbeat(&leader, late),
        Err(ResponseError::RebalanceInProgress)
    );
    let (_, alone) = joined(enter(
        &mut group,
        &join(&leader, &["range", "roundrobin"]),
        late,
    ));
    assert_eq!((alone.generation, alone.members.len()), (3, 1));
}

#[test]
fn who_does_not_join_again_in_time_is_left_behind() {
    let now = Instant::now();
    let (mut group, leader, follower) = pair(now);
    let reply = enter(&mut group, &join(&leader, &["range", "roundrobin"]), now);
    for seconds in 1..60 {
        let then = now + Duration::from_secs(seconds);
        assert_eq!(
            group.heartbeat(&follower, then),
            Err(ResponseError::RebalanceInProgress)
        );
        group.tick(then);
    }
    assert_eq!(group.state, State::PreparingRebalance);
    group.tick(now + REBALANCE);
    assert_eq!(joined(reply).1.members.len(), 1);
    assert_eq!(
        group.identify(&follower, None, None),
        Err(ResponseError::UnknownMemberId)
    );
}

#[test]
fn leaving_hands_over_at_once() {
    let now = Instant::now();
    let (mut group, leader, follower) = pair(now);
    assert_eq!(group.leave(&leader, None, now), Ok(()));
    assert_eq!(
        group.leave(&leader, None, now),
        Err(ResponseError::UnknownMemberId)
    );
    let (_, alone) = joined(enter(
        &mut group,
        &join(&follower, &["roundrobin", "range"]),
        now,
    ));
    assert_eq!(
        (alone.leader.as_str(), alone.protocol.as_str()),
        (follower.as_str(), "roundrobin")
    );
    assert_eq!(group.leave(&follower, None, now), Ok(()));
    assert_eq!((group.state, group.generation), (State::Empty, 4));
}

#[test]
fn an_id_is_asked_for_first_and_not_kept_for_ever() {
    let now = Instant::now();
    let mut group = Group::new(now);
    let asking = Join {
        asks_for_id: true,
        ..join("", &["range"])
    };
    let (id, outcome) = enter(&mut group, &asking, now).try_recv().unwrap();
    assert_eq!(outcome.unwrap_err(), ResponseError::MemberIdRequired);
    assert!(!group.vacant());
    let (same, _) = joined(enter(&mut group, &join(&id, &["range"]), now));
    assert_eq!(same, id);
    let (unused, _) = enter(&mut group, &asking, now).try_recv().unwrap();
    group.tick(now + SESSION);
    assert_eq!(
        refused(enter(&mut group, &join(&unused, &["range"]), now)),
        ResponseError::UnknownMemberId
    );
}

#[test]
fn members_must_have_an_assignor_in_common() {
    let now = Instant::now();
    let mut group = Group::new(now);
    joined(enter(&mut group, &join("", &["range"]), now));
    let other = enter(&mut group, &join("", &["sticky"]), now);
    assert_eq!(refused(other), ResponseError::InconsistentGroupProtocol);
    let connect = Join {
        protocol_type: "connect".to_owned(),
        ..join("", &["range"])
    };
    assert_eq!(
        refused(enter(&mut group, &connect, now)),
        ResponseError::InconsistentGroupProtocol
    );
    assert_eq!(
        refused(enter(&mut group, &join("", &[]), now)),
        ResponseError::InconsistentGroupProtocol
    );
    assert_eq!(
        refused(group.join(&join("", &["range"]), Duration::ZERO, 1, now)),
        ResponseError::GroupMaxSizeReached
    );
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_old_self() {
    let now = Instant::now();
    let mut group = Group::new(now);
    let (old, _) = joined(enter(&mut group, &static_join("", "a"), now));
    let assignments = HashMap::from([(old.clone(), Bytes::from_static(b"mine"))]);
    group
        .sync(&old, assignments, now)
        .try_recv()
        .unwrap()
        .unwrap();
    let (new, back) = joined(enter(&mut group, &static_join("", "a"), now));
    assert_ne!(new, old);
    assert_eq!((back.generation, group.state), (1, State::Stable));
    // An older client must not believe that it has to assign.
    assert_ne!(back.leader, new);
    assert_eq!(
        group.sync(&new, HashMap::new(), now).try_recv().unwrap(),
        Ok(Bytes::from_static(b"mine"))
    );
    assert_eq!(
        group.identify(&old, Some("a"), Some(1)),
        Err(ResponseError::FencedInstanceId)
    );
    assert_eq!(
        refused(enter(&mut group, &static_join(&old, "a"), now)),
        ResponseError::FencedInstanceId
    );
    // A newer client leads on, and is told not to assign.
    let skipping = Join {
        can_skip: true,
        ..static_join("", "a")
    };
    let (newest, back) = joined(enter(&mut group, &skipping, now));
    assert!(back.skip_assignment && back.leader == newest && back.members.len() == 1);
}

#[test]
fn a_leader_that_never_assigns_does_not_hold_the_others_up() {
    let now = Instant::now();
    let mut group = Group::new(now);
    let (leader, _) = joined(enter(&mut group, &join("", &["range"]), now));
    let second = enter(&mut group, &join("", &["range"]), now);
    joined(enter(&mut group, &join(&leader, &["range"]), now));
    let (follower, _) = joined(second);
    let mut waiting = group.sync(&follower, HashMap::new(), now);
    for seconds in 1..=60 {
        let then = now + Duration::from_secs(seconds);
        // Alive, but not assigning.
        let _ = group.heartbeat(&leader, then);
        group.tick(then);
    }
    assert_eq!(
        waiting.try_recv().unwrap(),
        Err(ResponseError::RebalanceInProgress)
    );
    assert!(!group.members.contains_key(&leader));
}

#[test]
fn a_client_that_went_away_while_joining_is_not_waited_for() {
    let now = Instant::now();
    let mut group = Group::new(now);
    let (leader, _) = joined(enter(&mut group, &join("", &["range"]), now));
    drop(enter(&mut group, &join("", &["range"]), now));
    let reply = enter(&mut group, &join(&leader, &["range"]), now);
    let mut then = now;
    for _ in 0..11 {
        then += Duration::from_secs(1);
        group.tick(then);
    }
    assert_eq!(joined(reply).1.members.len(), 1);
}
