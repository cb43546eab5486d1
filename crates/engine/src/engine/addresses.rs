//! Where members are reached: each says it for itself, signed by its node key, and
//! everybody passes on what is news. So a node that knows one address learns the rest,
//! and a member that starts somewhere else is found again.
//!
//! | from | what | what is done |
//! |---|---|---|
//! | journal | a member's address | taken as known |
//! | own start | the boot generation is settled | own address signed, said to all |
//! | stream | established, or asks for everything | all known addresses said |
//! | stream | an address that is no newer than the known one | ignored, unverified |
//! | stream | a newer one by a member | verified, kept, passed on, told to the driver |
//! | stream | a bad signature, more addresses than members | the sender is accused |
//!
//! Of two addresses by one member the one with the greater (generation, time) counts.

use std::collections::BTreeMap;

use quorate_consensus::statement::{self, AddressBody, SignedAddress};
use quorate_consensus::wire::{self, AccusationKind, SignedStatement, frame};
use quorate_consensus::{Address, NodeId};

use super::intake::Offence;
use super::start::Phase;
use super::verdicts::digest_of;
use super::{Engine, Pending};
use crate::api::{Effect, Now, Record, StreamId};

/// The first protocol version with addresses.
pub(super) const SINCE: u32 = 2;

/// How many news of one member are passed on at once.
const MOST_NEWS: u32 = 16;

/// How often one more is, in milliseconds: whoever signs a new address all day long
/// must not keep the whole cluster busy.
const NEWS_EVERY_MS: u64 = 10_000;

/// How long a failed signature rests, in milliseconds.
const SIGN_AGAIN_MS: u64 = 1_000;

/// What this engine knows of addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Where this node is reached, if others shall know.
    own: Option<Address>,
    /// The boot generation for which the own address was signed, or is being signed.
    said_for: Option<u64>,
    /// When it may be signed again after it failed.
    again_mono: u64,
    own_signed: Option<SignedStatement>,
    known: BTreeMap<NodeId, Known>,
}

/// One member's address.
#[derive(Debug)]
struct Known {
    signed: SignedStatement,
    address: Address,
    order: (u64, u64),
    /// How many more news are taken, and since when they have grown.
    news: u32,
    grown_mono: u64,
}

impl Engine {
    /// Lets this node tell the others where it is reached.
    #[must_use]
    pub fn advertising(mut self, address: Address) -> Self {
        self.addresses.own = Some(address);
        self
    }

    /// Lets the engine start with the addresses that its journal has kept; those that
    /// are no good under the rules in force are left out. The driver is told of the
    /// others with the first effects.
    #[must_use]
    pub fn remembering(mut self, kept: impl IntoIterator<Item = SignedStatement>) -> Self {
        let rules = self.board.rules().clone();
        for signed in kept {
            let opened = statement::open(&signed, &rules, self.verifier.as_ref());
            if let Ok(opened) = opened
                && !self.is_own(&opened.node_id)
                && self.is_newer(&opened.node_id, &opened.body)
            {
                self.know(opened);
            }
        }
        self
    }

    /// Where members are reached, as far as this node has learned it from them,
    /// ascending by id.
    pub fn addresses(&self) -> impl Iterator<Item = (&NodeId, &Address)> {
        self.addresses
            .known
            .iter()
            .map(|(id, known)| (id, &known.address))
    }

    /// Signs the own address once the boot generation is settled, and again when the
    /// generation grows.
    pub(super) fn announce(&mut self, now: Now) {
        let settled = matches!(self.phase, Phase::Booting | Phase::InService);
        let generation = self.generation;
        if !settled
            || self.addresses.said_for == Some(generation)
            || now.mono_ms < self.addresses.again_mono
        {
            return;
        }
        let Some(address) = self.addresses.own.clone() else {
            return;
        };
        self.addresses.said_for = Some(generation);
        let body = AddressBody {
            address,
            generation,
            time_ms: now.wall_ms,
        };
        let rules = self.board.rules().clone();
        self.sign(now, Pending::SignAddress, &rules, &body);
    }

    pub(super) fn address_signed(
        &mut self,
        now: Now,
        statement: Vec<u8>,
        result: Result<Vec<u8>, String>,
    ) {
        let Ok(signature) = result else {
            self.addresses.said_for = None;
            self.addresses.again_mono = now.mono_ms + SIGN_AGAIN_MS;
            return;
        };
        let signed = SignedStatement {
            statement,
            signature,
        };
        self.addresses.own_signed = Some(signed.clone());
        self.pass_on(signed, None);
    }

    /// Says all known addresses on an established stream.
    pub(super) fn say_addresses(&mut self, id: StreamId) {
        if !self.knows_addresses(id) {
            return;
        }
        let known = self.addresses.known.values().map(|known| &known.signed);
        let own = self.addresses.own_signed.iter();
        let addresses: Vec<_> = own.chain(known).cloned().collect();
        if !addresses.is_empty() {
            let all = wire::Addresses { addresses };
            self.send(id, frame::Body::Addresses(all));
        }
    }

    /// Takes in what a peer says of addresses.
    pub(super) fn heard_addresses(
        &mut self,
        now: Now,
        from: StreamId,
        said: &wire::Addresses,
    ) -> Result<(), Box<Offence>> {
        let members = self.board.rules().total();
        // There is at least one member.
        if said.addresses.len() > members {
            return Err(Box::new(Offence {
                kind: AccusationKind::Malformed,
                tx_id: None,
                subject_digest: digest_of(&said.addresses[0]),
                why: format!("{} addresses of {members} members", said.addresses.len()),
            }));
        }
        for signed in &said.addresses {
            // Told again and again by everybody: only news are worth a verification.
            let news = statement::parse::<AddressBody>(&signed.statement)
                .ok()
                .is_none_or(|(header, body)| self.is_news(now, &header.node_id, &body));
            if !news {
                continue;
            }
            let Some(opened) = self.open_peer::<AddressBody>(signed)? else {
                continue;
            };
            // Only what is signed under the rules in force is a member's for sure.
            let current = self.board.rules().is_member(&opened.node_id);
            if current && !self.is_own(&opened.node_id) && !self.board.is_banned(&opened.node_id) {
                self.took_news(now, &opened.node_id);
                self.persist(Record::Address {
                    node_id: opened.node_id.clone(),
                    signed: signed.clone(),
                });
                self.know(opened);
                self.pass_on(signed.clone(), Some(from));
            }
        }
        Ok(())
    }

    fn is_newer(&self, node_id: &NodeId, body: &AddressBody) -> bool {
        let known = self.addresses.known.get(node_id);
        known.is_none_or(|known| known.order < body.order())
    }

    /// Newer, and its member has not had too many news lately.
    fn is_news(&self, now: Now, node_id: &NodeId, body: &AddressBody) -> bool {
        let known = self.addresses.known.get(node_id);
        self.is_newer(node_id, body) && known.is_none_or(|known| known.allowance(now) > 0)
    }

    fn took_news(&mut self, now: Now, node_id: &NodeId) {
        if let Some(known) = self.addresses.known.get_mut(node_id) {
            let left = known.allowance(now);
            // What has not grown to a whole one yet goes on growing.
            let grown = (now.mono_ms.saturating_sub(known.grown_mono)) / NEWS_EVERY_MS;
            known.grown_mono = match left {
                MOST_NEWS => now.mono_ms,
                _ => known.grown_mono + grown * NEWS_EVERY_MS,
            };
            known.news = left.saturating_sub(1);
        }
    }

    /// Believes a verified address, and tells the driver.
    fn know(&mut self, opened: SignedAddress) {
        let (order, address) = (opened.body.order(), opened.body.address);
        self.out.push(Effect::Reach {
            node_id: opened.node_id.clone(),
            address: address.clone(),
        });
        let before = self.addresses.known.get(&opened.node_id);
        let (news, grown_mono) = before.map_or((MOST_NEWS, 0), |k| (k.news, k.grown_mono));
        let known = Known {
            signed: opened.signed,
            address,
            order,
            news,
            grown_mono,
        };
        self.addresses.known.insert(opened.node_id, known);
    }

    fn pass_on(&mut self, signed: SignedStatement, except: Option<StreamId>) {
        let streams: Vec<_> = self.peers.values().copied().collect();
        for id in streams {
            if Some(id) != except && self.knows_addresses(id) && self.has_room(id) {
                let addresses = vec![signed.clone()];
                self.send(id, frame::Body::Addresses(wire::Addresses { addresses }));
            }
        }
    }
}

impl Known {
    fn allowance(&self, now: Now) -> u32 {
        let grown = now.mono_ms.saturating_sub(self.grown_mono) / NEWS_EVERY_MS;
        let grown = u32::try_from(grown).unwrap_or(MOST_NEWS);
        self.news.saturating_add(grown).min(MOST_NEWS)
    }
}
