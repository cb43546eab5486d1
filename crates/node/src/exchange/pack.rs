//! Many statements to a frame: what waits is put together, and what is too large for
//! one frame is spread over several.

use prost::Message as _;
use quorate_consensus::batch::Said;
use quorate_consensus::statement::{self, VoteBody};
use quorate_consensus::wire::{self, Batch, Frame, frame};
use quorate_telemetry::TraceContext;

/// The most bytes that a frame may have, its wrapping included.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Room for the tags and lengths around statements.
const MARGIN: usize = 64;

/// Bytes in a batch, with room for tag and length.
fn len_of(said: &Said) -> usize {
    8 + match said {
        Said::Vote(vote) => vote.encoded_len(),
        Said::Evidence(misbehaviour) => misbehaviour.encoded_len(),
        Said::Decision(signed)
        | Said::Abort(signed)
        | Said::Observation(signed)
        | Said::Accusation(signed)
        | Said::OperatorAct(signed) => signed.encoded_len(),
    }
}

/// Gives a vote the context of its transaction's trace, unless it has one.
fn traced(mut said: Said) -> Said {
    if let Said::Vote(vote) = &mut said
        && vote.traceparent.is_empty()
        && let Some(signed) = &vote.vote
        && let Ok((header, body)) = statement::parse::<VoteBody>(&signed.statement)
    {
        let context = TraceContext::decision(&header.cluster_id, &body.tx_id);
        vote.traceparent = context.to_string();
    }
    said
}

/// A `traceparent` is this long.
const TRACEPARENT: usize = 64;

/// Packs frames that wait, in order: batches that follow each other become one, as
/// long as that stays under `limit` bytes.
pub(crate) fn pack(frames: impl IntoIterator<Item = Frame>, limit: usize) -> Vec<Frame> {
    let mut packed = Vec::new();
    let mut batch = Batch::default();
    let mut len = 0;
    let flush = |batch: &mut Batch, len: &mut usize, packed: &mut Vec<Frame>| {
        if *len > 0 {
            *len = 0;
            let body = frame::Body::Batch(std::mem::take(batch));
            packed.push(Frame { body: Some(body) });
        }
    };
    for frame in frames {
        match frame.body {
            Some(frame::Body::Batch(statements)) => {
                for said in Said::all_of(statements) {
                    let more = len_of(&said) + TRACEPARENT;
                    if len + more + MARGIN > limit {
                        flush(&mut batch, &mut len, &mut packed);
                    }
                    len += more;
                    traced(said).put_into(&mut batch);
                }
            }
            body => {
                flush(&mut batch, &mut len, &mut packed);
                packed.push(Frame { body });
            }
        }
    }
    flush(&mut batch, &mut len, &mut packed);
    packed
}

/// The bytes of a frame as the stream carries it, in either direction.
pub(crate) fn encode(frame: Frame) -> bytes::Bytes {
    let frame = Some(frame);
    wire::ExchangeRequest { frame }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use quorate_consensus::wire::{Ping, Resync, SignedStatement, TracedVote};
    use quorate_testkit::{Cluster, NOW, number, tx};

    use super::*;

    fn votes(cluster: &Cluster, from: usize, count: usize) -> Frame {
        let vote = |i: usize| TracedVote {
            vote: Some(cluster.vote(0, &tx(&format!("tx{i}")), number(1), NOW)),
            traceparent: String::new(),
        };
        let votes = (from..from + count).map(vote).collect();
        let batch = Batch {
            votes,
            ..Batch::default()
        };
        Frame {
            body: Some(frame::Body::Batch(batch)),
        }
    }

    fn batches(frames: &[Frame]) -> Vec<&Batch> {
        frames
            .iter()
            .filter_map(|f| match &f.body {
                Some(frame::Body::Batch(batch)) => Some(batch),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn batches_that_wait_become_one_and_keep_their_order() {
        let cluster = Cluster::new(4, 3);
        let ping = Frame {
            body: Some(frame::Body::Ping(Ping { token: 1 })),
        };
        let frames = [
            votes(&cluster, 0, 2),
            votes(&cluster, 2, 3),
            ping.clone(),
            votes(&cluster, 5, 1),
        ];
        let packed = pack(frames.clone(), MAX_FRAME);
        assert_eq!(packed.len(), 3);
        assert_eq!(packed[1], ping);
        let statements = |frames: &[Frame]| -> Vec<SignedStatement> {
            let votes = batches(frames).into_iter().flat_map(|b| b.votes.clone());
            votes.filter_map(|v| v.vote).collect()
        };
        assert_eq!(statements(&packed), statements(&frames));
    }

    #[test]
    fn no_packed_frame_is_larger_than_the_limit() {
        let cluster = Cluster::new(4, 3);
        let limit = 4096;
        let packed = pack([votes(&cluster, 0, 100)], limit);
        assert!(packed.len() > 1);
        let count: usize = batches(&packed).iter().map(|b| b.votes.len()).sum();
        assert_eq!(count, 100);
        for frame in packed {
            assert!(encode(frame).len() <= limit);
        }
    }

    #[test]
    fn every_vote_carries_the_trace_of_its_transaction() {
        let cluster = Cluster::new(4, 3);
        let packed = pack([votes(&cluster, 0, 1)], MAX_FRAME);
        let found: TraceContext = batches(&packed)[0].votes[0].traceparent.parse().unwrap();
        let expected = TraceContext::decision(&cluster.rules().cluster_id(), &tx("tx0"));
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_lost_and_nothing_made_up() {
        assert!(pack([], MAX_FRAME).is_empty());
        let resync = Frame {
            body: Some(frame::Body::Resync(Resync {})),
        };
        assert_eq!(pack([resync.clone()], MAX_FRAME), [resync]);
    }
}
