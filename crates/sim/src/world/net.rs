//! Streams between machines: ordered, and broken where a frame is lost.

use std::collections::BTreeMap;

use quorate_consensus::wire::{self, Frame, frame};
use quorate_consensus::{NodeId, Value};
use quorate_engine::{Event, StreamId};

use super::{Due, World};
use crate::liars::votes;
use crate::plan::Tx;

/// After a stream ended both ends try again.
const REDIAL_MS: u64 = 700;

/// A dead connection is noticed after so long.
const KEEPALIVE_MS: u64 = 1_500;

/// The digest of the certificates that bear a wrong name.
const WRONG_CERTIFICATE: [u8; 32] = [0xee; 32];

/// How long an impostor keeps its stream.
const POSE_MS: u64 = 1_000;

/// One end of a stream.
#[derive(Clone, Debug)]
struct End {
    place: usize,
    other: usize,
    twin: u64,
    /// When the last frame that left here arrives.
    last_at: u64,
    hanging_up: bool,
    /// Of a liar: its own hello is said.
    greeted: bool,
    /// Of a liar: the other end's hello is heard.
    met: bool,
}

/// A frame on its way to a machine without an engine.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) stream: u64,
    pub(super) frame: Frame,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Net {
    ends: BTreeMap<u64, End>,
    number: u64,
    /// Pairs for which a dial is due.
    dialling: std::collections::BTreeSet<(usize, usize)>,
}

impl World {
    /// Two machines try to connect.
    pub(super) fn dial(&mut self, a: usize, b: usize) {
        self.net.dialling.remove(&(a, b));
        if self.places[a].member == self.places[b].member {
            return;
        }
        let connected = self.net.ends.values().any(|e| e.place == a && e.other == b);
        let lives = |world: &Self, i: usize| {
            world.places[i].engine.is_some() || !world.places[i].runs_engine
        };
        let welcome =
            |x: usize, y: usize| !self.places[x].unwelcome.contains(&self.places[y].node_id);
        if connected || !lives(self, a) || !lives(self, b) || !welcome(a, b) || !welcome(b, a) {
            // A start, or a welcome, dials again.
            return;
        }
        let (ma, mb) = (self.places[a].member, self.places[b].member);
        if self.faults.blocked(ma, mb, self.now) || self.faults.blocked(mb, ma, self.now) {
            self.redial(a, b);
            return;
        }
        let (ia, ib) = (self.net.number + 1, self.net.number + 2);
        self.net.number += 2;
        for (id, place, other, twin) in [(ia, a, b, ib), (ib, b, a, ia)] {
            let wait = self.span(self.plan.noise.frame_ms);
            let at = self.now + wait;
            self.net.ends.insert(
                id,
                End {
                    place,
                    other,
                    twin,
                    last_at: at,
                    hanging_up: false,
                    greeted: false,
                    met: false,
                },
            );
            if self.places[place].engine.is_some() {
                let event = Event::StreamUp {
                    stream: StreamId(id),
                    peer: self.places[other].node_id.clone(),
                    own_certificate: certificate(place),
                    peer_certificate: certificate(other),
                    challenge: challenge(id),
                };
                self.post(wait, place, event);
            }
        }
        // What the other end says first must not come before the stream stands.
        let latest = self.net.ends[&ia].last_at.max(self.net.ends[&ib].last_at);
        for id in [ia, ib] {
            if let Some(end) = self.net.ends.get_mut(&id) {
                end.last_at = latest;
            }
        }
        for (id, place) in [(ia, a), (ib, b)] {
            if self.places[place].engine.is_none() {
                let nonce = challenge(id).to_vec();
                let body = frame::Body::Challenge(wire::Challenge { nonce });
                self.say(id, body);
            }
        }
    }

    fn redial(&mut self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        if self.net.dialling.insert(pair) {
            self.schedule(REDIAL_MS, Due::Dial(pair.0, pair.1));
        }
    }

    /// A machine says something on one of its streams.
    pub(super) fn say(&mut self, stream: u64, body: frame::Body) {
        if let Some(end) = self.net.ends.get(&stream) {
            let place = end.place;
            let frame = Frame { body: Some(body) };
            self.send(place, StreamId(stream), frame);
        }
    }

    /// Carries a frame to the other end.
    pub(super) fn send(&mut self, place: usize, stream: StreamId, frame: Frame) {
        let Some(end) = self.net.ends.get(&stream.0) else {
            return;
        };
        let (other, twin, last_at, hanging_up) = (end.other, end.twin, end.last_at, end.hanging_up);
        let (from, to) = (self.places[place].member, self.places[other].member);
        let is_talk = matches!(
            frame.body,
            Some(
                frame::Body::Batch(_)
                    | frame::Body::Announcement(_)
                    | frame::Body::StatementRequest(_)
                    | frame::Body::Graft(_)
                    | frame::Body::Prune(_)
            )
        );
        if self.faults.full(from, self.now) && self.places[place].engine.is_some() && is_talk {
            // The engine was told that its queue is full.
            return;
        }
        let lost = self.chance(if is_talk { self.plan.noise.lost } else { 0 });
        if hanging_up || lost || self.faults.blocked(from, to, self.now) {
            self.breaks(stream.0, if lost { 1 } else { KEEPALIVE_MS });
            return;
        }
        if is_talk && self.chance(self.plan.noise.vanished) {
            return;
        }
        let late = self.places[place].lag_ms + self.lag(place) + self.lag(other);
        let mut wait = self.span(self.plan.noise.frame_ms) + late;
        let twice = is_talk && self.chance(self.plan.noise.twice);
        let overtaken = is_talk && self.chance(self.plan.noise.overtaken);
        let at = (self.now + wait).max(last_at);
        if overtaken {
            wait = (at - self.now) + 3 * wait + 5;
        } else {
            wait = at - self.now;
            if let Some(end) = self.net.ends.get_mut(&stream.0) {
                end.last_at = at;
            }
        }
        let greets = matches!(frame.body, Some(frame::Body::Hello(_)));
        if twice {
            let again = wait + self.span((0, 50));
            self.arrive(again, other, twin, frame.clone());
        }
        self.arrive(wait, other, twin, frame);
        if greets && self.places[place].runs_engine && self.places[place].liar.is_some() {
            self.greet(stream.0, true);
        }
    }

    fn arrive(&mut self, wait: u64, place: usize, stream: u64, frame: Frame) {
        if self.places[place].liar.is_some() {
            let mail = Mail {
                stream,
                frame: frame.clone(),
            };
            self.schedule(wait, Due::Mail(Box::new(mail)));
        }
        if self.places[place].engine.is_some() {
            let stream = StreamId(stream);
            self.post(wait, place, Event::Frame { stream, frame });
        }
    }

    /// Bytes that are no frame reach the other end of a liar's stream.
    pub(super) fn garble(&mut self, stream: u64, bytes: &[u8]) {
        let Some(end) = self.net.ends.get(&stream) else {
            return;
        };
        let (other, twin) = (end.other, StreamId(end.twin));
        if self.places[other].engine.is_some() {
            let event = Event::BadFrame {
                stream: twin,
                subject_digest: *blake3::hash(bytes).as_bytes(),
                why: "these bytes are no frame".into(),
            };
            self.post(1, other, event);
        }
    }

    /// A liar hears a frame. Greetings are said for it.
    pub(super) fn deliver_to_liar(&mut self, mail: Mail) {
        let Some(end) = self.net.ends.get(&mail.stream) else {
            return;
        };
        let (place, other) = (end.place, end.other);
        let Some(body) = mail.frame.body else { return };
        if self.places[place].runs_engine {
            // The engine beside it does the talking.
            self.cue_heard(place, other, &body);
            if matches!(body, frame::Body::Hello(_)) {
                self.greet(mail.stream, false);
            }
            return;
        }
        match &body {
            frame::Body::Challenge(challenge) => {
                let hello = self.liars_hello(place, other, &challenge.nonce);
                self.say(mail.stream, frame::Body::Hello(hello));
            }
            frame::Body::Hello(_) => {
                if let Some(end) = self.net.ends.get_mut(&mail.stream) {
                    end.met = true;
                }
                self.cue_met(place, other);
            }
            _ => self.cue_heard(place, other, &body),
        }
    }

    /// A hello is said, or heard, by an engine beside a liar: after both it has met the
    /// other.
    fn greet(&mut self, stream: u64, said: bool) {
        let Some(end) = self.net.ends.get_mut(&stream) else {
            return;
        };
        let before = end.greeted && end.met;
        match said {
            true => end.greeted = true,
            false => end.met = true,
        }
        if end.greeted && end.met && !before {
            let (place, other) = (end.place, end.other);
            self.cue_met(place, other);
        }
    }

    fn liars_hello(&self, place: usize, other: usize, nonce: &[u8]) -> wire::Hello {
        let body = quorate_consensus::statement::HelloBody {
            generation: 1,
            protocol_min: 1,
            protocol_max: 1,
            own_certificate: certificate(place),
            peer_certificate: certificate(other),
            challenge: nonce.try_into().unwrap_or_default(),
        };
        let hello = Some(self.cluster.say(self.places[place].member, &body));
        wire::Hello { hello }
    }

    /// The stream of a liar's machine to a member, if it stands.
    pub(super) fn stream_to(&self, place: usize, to: &NodeId) -> Option<u64> {
        let runs_engine = self.places[place].runs_engine;
        let mut ends = self.net.ends.iter();
        let found = ends.find(|(_, end)| {
            end.place == place && self.places[end.other].node_id == *to && (end.met || runs_engine)
        });
        Some(*found?.0)
    }

    /// A liar calls a member with a certificate that bears another's name. Nobody
    /// listens at its end.
    pub(super) fn pose(&mut self, liar: usize, name: usize, to: usize) {
        let mut places = self.places.iter();
        let callee = places.position(|place| place.member == to && place.engine.is_some());
        let Some(place) = callee.filter(|_| self.is_liar_member(liar)) else {
            return;
        };
        let peer = self.cluster.node_id(name);
        if [liar, to].contains(&name) || self.places[place].unwelcome.contains(&peer) {
            return;
        }
        self.net.number += 1;
        let stream = StreamId(self.net.number);
        let challenge = challenge(stream.0);
        let hello = quorate_consensus::statement::HelloBody {
            generation: 1,
            protocol_min: 1,
            protocol_max: 1,
            own_certificate: WRONG_CERTIFICATE,
            peer_certificate: certificate(place),
            challenge,
        };
        let hello = wire::Hello {
            hello: Some(self.cluster.say(liar, &hello)),
        };
        let wall = self.true_wall();
        let mut vote = self.cluster.vote(liar, &Tx(0).id(), Value::Number(1), wall);
        vote.signature[0] ^= 1;
        let up = Event::StreamUp {
            stream,
            peer,
            own_certificate: certificate(place),
            peer_certificate: WRONG_CERTIFICATE,
            challenge,
        };
        self.post(1, place, up);
        let said = [
            frame::Body::Challenge(wire::Challenge {
                nonce: challenge.to_vec(),
            }),
            frame::Body::Hello(hello),
            votes([vote]),
        ];
        for (turn, body) in (2..).zip(said) {
            let frame = Frame { body: Some(body) };
            self.post(turn, place, Event::Frame { stream, frame });
        }
        self.post(POSE_MS, place, Event::StreamDown { stream });
    }

    fn breaks(&mut self, stream: u64, in_ms: u64) {
        let Some(end) = self.net.ends.get_mut(&stream) else {
            return;
        };
        if std::mem::replace(&mut end.hanging_up, true) {
            return;
        }
        let twin = end.twin;
        self.schedule(in_ms, Due::Hangup(stream));
        self.schedule(in_ms + 3, Due::Hangup(twin));
    }

    /// One end notices that the stream is no more.
    pub(super) fn hang_up(&mut self, stream: u64) {
        let Some(end) = self.net.ends.remove(&stream) else {
            return;
        };
        if self.places[end.place].engine.is_some() {
            let stream = StreamId(stream);
            self.feed(end.place, Event::StreamDown { stream });
        }
        self.redial(end.place, end.other);
    }

    /// The streams between two members break.
    pub(super) fn break_between(&mut self, a: usize, b: usize) {
        let between = |end: &End| {
            let pair = (self.places[end.place].member, self.places[end.other].member);
            pair == (a, b)
        };
        let mut ends = self.net.ends.iter();
        let found = ends.find(|(_, end)| between(end)).map(|(id, _)| *id);
        if let Some(stream) = found {
            self.breaks(stream, 1);
        }
    }

    /// An engine ends a stream.
    pub(super) fn close(&mut self, place: usize, stream: StreamId, goodbye: wire::Goodbye) {
        let body = Some(frame::Body::Goodbye(goodbye));
        self.send(place, stream, Frame { body });
        if let Some(end) = self.net.ends.remove(&stream.0) {
            let at = end.last_at.saturating_sub(self.now) + 1;
            self.schedule(at, Due::Hangup(end.twin));
            self.redial(end.place, end.other);
        }
    }

    /// An engine wants to speak with a node, or not.
    pub(super) fn admit(&mut self, place: usize, node_id: NodeId, welcome: bool) {
        if !welcome {
            self.places[place].unwelcome.insert(node_id);
            return;
        }
        self.places[place].unwelcome.remove(&node_id);
        for other in 0..self.places.len() {
            if self.places[other].node_id == node_id {
                self.redial(place, other);
            }
        }
    }

    /// A dead process has no streams; the other ends notice soon.
    pub(super) fn lose_streams(&mut self, place: usize) {
        let mine = |end: &End| end.place == place;
        let gone: Vec<_> = self.net.ends.extract_if(.., |_, end| mine(end)).collect();
        for (_, end) in gone {
            self.schedule(2, Due::Hangup(end.twin));
        }
    }

    /// The queues of a machine are full from now on, or have room again.
    pub(super) fn tell_queues(&mut self, member: usize, full: bool) {
        let of = |end: &End| self.places[end.place].member == member;
        let mine: Vec<_> = self
            .net
            .ends
            .iter()
            .filter(|(_, end)| of(end) && self.places[end.place].engine.is_some())
            .map(|(id, end)| (StreamId(*id), end.place))
            .collect();
        for (stream, place) in mine {
            let event = match full {
                true => Event::QueueFull { stream },
                false => Event::Drained { stream },
            };
            self.feed(place, event);
        }
    }
}

fn certificate(place: usize) -> [u8; 32] {
    [place as u8 + 1; 32]
}

fn challenge(stream: u64) -> [u8; 32] {
    let mut challenge = [0x5a; 32];
    challenge[..8].copy_from_slice(&stream.to_be_bytes());
    challenge
}
