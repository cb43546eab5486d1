//! "What a node has verified never un-happens … what vanishes from the store is written
//! back and reported as STORE_TAMPERING" (section 6); "a forged counter, vote, status,
//! reservation, ban, member or rules key …: none leads to a decision, a ban, a second
//! submission or a lost fact". Asked where the board lies in keys, whoever wrote what
//! into them: nobody's log is another than that of who has read everything, nobody is
//! suspected while nobody tampers, and in the end the keys say what the board does.

use quorate_consensus::ballot::{Ballot, state_name};
use quorate_consensus::wire::BallotState;
use quorate_engine::{Alert, Effect, Event};
use quorate_keyspace::{KeyValue, names};

use super::{Happening, Invariant, Sort};
use crate::world::World;
use crate::world::store::Keys;

/// Whatever is done to the keys is found, and put right.
#[derive(Default)]
pub(super) struct Tampering;

impl Invariant for Tampering {
    fn name(&self) -> &'static str {
        "tampering"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Event, Sort::Effect, Sort::Found]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        let Some(keys) = world.store().keys() else {
            return Ok(());
        };
        if world.store().views()[0].is_forged() {
            return Ok(());
        }
        match what {
            Happening::Found { place, finding } => {
                let name = world.node_id(*place);
                match keys.lies().is_empty() {
                    true => Err(format!("{name} finds what nobody did: {finding}")),
                    false => Ok(()),
                }
            }
            Happening::Event {
                place,
                event: Event::Entries { entries },
            } => {
                let log = world.store().views()[0].log();
                let mut entries = entries.iter();
                if !world.places()[*place].reads_whole() {
                    return Ok(());
                }
                let wrong = entries.find(|entry| {
                    let index = entry.revision.checked_sub(1);
                    let index = index.and_then(|index| usize::try_from(index).ok());
                    index.and_then(|index| log.get(index)) != Some(entry)
                });
                match wrong {
                    None => Ok(()),
                    Some(entry) => Err(format!(
                        "{} reads another revision {} than there is",
                        world.node_id(*place),
                        entry.revision
                    )),
                }
            }
            Happening::Effect {
                place,
                effect: Effect::Alert(Alert::StoreTampering { detail }),
            } if world.places()[*place].reads_whole() => Err(format!(
                "what the keys gave to {} is not justified: {detail}",
                world.node_id(*place)
            )),
            _ => Ok(()),
        }
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        let view = &world.store().views()[0];
        let up = || {
            world
                .places()
                .iter()
                .filter(|place| place.engine().is_some())
        };
        // Somebody must have been there to put it right.
        let somebody = up().next().is_some() && up().all(|place| place.reads_whole());
        match world.store().keys() {
            Some(keys) if !view.is_forged() && somebody => is_right(world, keys),
            _ => Ok(()),
        }
    }
}

/// The keys say what the board does. Derived here once more, and otherwise than readers
/// do it.
fn is_right(world: &World, keys: &Keys) -> Result<(), String> {
    let board = world.store().views()[0].board();
    if let Some(key) = keys.missing().first() {
        return Err(format!("{key} was not put back"));
    }
    for lie in keys.lies() {
        for (key, said) in &lie.said {
            let lies = keys.model().get(key).filter(|kv| kv.value == *said);
            let says = |kv: &KeyValue| !kv.value.is_empty();
            if lies.is_some_and(says) {
                return Err(format!("{key} was not put right"));
            }
        }
    }
    for member in board.rules().members() {
        let node_id = &member.node_id;
        let says = keys.model().get(&names::banned(node_id)).is_some();
        if says != board.is_banned(node_id) {
            return Err(format!(
                "the keys say of {node_id} that it is banned: {says}"
            ));
        }
    }
    board
        .ballots()
        .try_for_each(|ballot| of_ballot(keys, ballot))
}

fn of_ballot(keys: &Keys, ballot: &Ballot) -> Result<(), String> {
    let tx_id = &ballot.tx_id;
    for node_id in ballot.votes.keys() {
        if keys.model().get(&names::vote(tx_id, node_id)).is_none() {
            return Err(format!("the vote of {node_id} on {tx_id} is not there"));
        }
    }
    let state = state_name(ballot.state);
    let status = keys.model().get(&names::status(tx_id));
    let says = |value: &[u8]| {
        let text = String::from_utf8_lossy(value);
        text.contains(&format!("\"{state}\""))
    };
    match status {
        None if ballot.state == BallotState::Collecting => {}
        Some(kv) if says(&kv.value) => {}
        _ => return Err(format!("the keys do not say that {tx_id} is {state}")),
    }
    let certified = keys.model().get(&names::certificate(tx_id)).is_some();
    match certified == ballot.certificate.is_some() {
        true => Ok(()),
        false => Err(format!(
            "{tx_id} has a certificate in the keys: {certified}"
        )),
    }
}
