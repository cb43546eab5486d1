//! The board's reservations against the chain.

use quorate_chain::Chain;
use quorate_consensus::TxId;
use quorate_consensus::board::Board;
use quorate_consensus::wire::BallotState;
use quorate_engine::{ChainAnswer, ChainAsk, Sighting};

/// One reservation of the board, and what the chain shows for its nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The transaction.
    pub tx_id: TxId,
    /// Its state on the board.
    pub state: BallotState,
    /// Its nonce.
    pub nonce: u64,
    /// What the chain shows, for people.
    pub shows: String,
    /// It fits: a stranger's transaction, or none where the board says CONFIRMED,
    /// does not.
    pub fits: bool,
}

/// Looks at each reservation, and behind the last one.
pub(super) async fn compare(chain: &dyn Chain, board: &Board) -> (Vec<Reserved>, Option<String>) {
    let mut all = Vec::new();
    let mut ballots: Vec<_> = board
        .ballots()
        .filter_map(|ballot| Some((ballot, ballot.reservation.as_ref()?)))
        .collect();
    ballots.sort_by_key(|(_, reservation)| reservation.nonce);
    for (ballot, reservation) in ballots {
        let done = ballot.state == BallotState::Confirmed;
        let (shows, fits) = match look(chain, &reservation.account, reservation.nonce).await {
            Ok(Sighting::Nothing) => ("nothing".to_owned(), !done),
            Ok(Sighting::Pending { payload, .. }) => match payload == reservation.payload {
                true => ("its transaction, waiting".to_owned(), !done),
                false => ("another's transaction, waiting".to_owned(), false),
            },
            Ok(Sighting::Included {
                payload,
                succeeded,
                block_number,
                ..
            }) => match (payload == reservation.payload, succeeded) {
                (true, true) => (format!("its transaction, in block {block_number}"), true),
                (true, false) => (
                    format!("its transaction, reverted in block {block_number}"),
                    !done,
                ),
                // A cancellation is one that the board gave up.
                (false, _) => (
                    format!("another transaction, in block {block_number}"),
                    ballot.state == BallotState::Failed,
                ),
            },
            Err(why) => (format!("unknown: {why}"), false),
        };
        all.push(Reserved {
            tx_id: ballot.tx_id.clone(),
            state: ballot.state,
            nonce: reservation.nonce,
            shows,
            fits,
        });
    }
    let target = board.rules().chain();
    let next = target.first_nonce.saturating_add(board.reservations());
    let unexplained = match look(chain, &target.account, next).await {
        Ok(Sighting::Nothing) => None,
        Ok(_) => Some(format!(
            "the account {} has a transaction with nonce {next}, which the board has given to nobody",
            target.account
        )),
        Err(why) => Some(format!("nonce {next} could not be looked at: {why}")),
    };
    (all, unexplained)
}

async fn look(chain: &dyn Chain, account: &str, nonce: u64) -> Result<Sighting, String> {
    let ask = ChainAsk::Look {
        account: account.to_owned(),
        nonce,
    };
    match chain.ask(ask).await {
        ChainAnswer::Seen(sighting) => Ok(sighting),
        ChainAnswer::Unavailable(why) => Err(why),
        other => Err(format!("the endpoint answered with {other:?}")),
    }
}
