//! `List`: ballots by state, newest first, page by page.

use prost::Message as _;
use quorate_consensus::TxId;
use quorate_consensus::wire::{BallotState, ListRequest, ListResponse};

use super::{Api, MAX_RESPONSE, ballot_of};
use crate::status::ApiError;

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// Ballots rendered in one look at the engine, so that a large page does not keep it
/// from its votes.
const AT_ONCE: usize = 50;

/// Where a ballot stands in the list: later opened before earlier, then by id.
type Place = (std::cmp::Reverse<u64>, TxId);

/// A checked request.
pub(super) struct Query {
    states: Vec<BallotState>,
    page: usize,
    after: Option<Place>,
}

impl Query {
    pub(super) fn read(request: ListRequest) -> Result<Self, ApiError> {
        let invalid = |field, detail: String| ApiError::Invalid { field, detail };
        let state = |number: i32| match BallotState::try_from(number) {
            Ok(state) if state != BallotState::Unspecified => Ok(state),
            _ => Err(invalid(
                "states",
                format!("{number} is no state of a ballot"),
            )),
        };
        let states = request.states.iter().map(|n| state(*n));
        let page = match usize::try_from(request.page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(size) if size <= LARGEST_PAGE => size,
            _ => {
                let detail = format!("must be 0 to {LARGEST_PAGE}, not {}", request.page_size);
                return Err(invalid("page_size", detail));
            }
        };
        let after = match &*request.page_token {
            "" => None,
            token => Some(read_token(token).ok_or_else(|| {
                let detail = "is not one that List has given: begin with an empty one";
                invalid("page_token", detail.to_owned())
            })?),
        };
        Ok(Self {
            states: states.collect::<Result<_, _>>()?,
            page,
            after,
        })
    }
}

fn token((opened, tx_id): &Place) -> String {
    hex::encode(format!("{}/{tx_id}", opened.0))
}

fn read_token(token: &str) -> Option<Place> {
    let text = String::from_utf8(hex::decode(token).ok()?).ok()?;
    let (opened, tx_id) = text.split_once('/')?;
    Some((
        std::cmp::Reverse(opened.parse().ok()?),
        TxId::new(tx_id).ok()?,
    ))
}

/// Answers a request.
pub(super) async fn list(api: &Api, query: Query) -> Result<ListResponse, ApiError> {
    let page = query.page;
    // One more than asked for tells whether there is a next page.
    let mut places = api.look(move |engine| places(engine, &query)).await?;
    let mut more = places.len() > page;
    places.truncate(page);
    let mut response = ListResponse::default();
    let mut last = None;
    let mut bytes = 0;
    'page: for some in places.chunks(AT_ONCE) {
        let wanted = some.to_vec();
        let ballots = api.look(move |engine| {
            let ballot = |(_, tx_id): &Place| ballot_of(engine, tx_id);
            wanted.iter().map(ballot).collect::<Vec<_>>()
        });
        for (place, ballot) in some.iter().zip(ballots.await?) {
            // One that was removed meanwhile is not there any more.
            let Some(ballot) = ballot else { continue };
            bytes += ballot.encoded_len() + 8;
            if bytes > MAX_RESPONSE && !response.ballots.is_empty() {
                more = true;
                break 'page;
            }
            response.ballots.push(ballot);
            last = Some(place.clone());
        }
    }
    if more {
        // Nothing was rendered, but more follows: go on after what was looked at.
        let last = last.or_else(|| places.last().cloned());
        response.next_page_token = last.as_ref().map(token).unwrap_or_default();
    }
    Ok(response)
}

fn places(engine: &quorate_engine::Engine, query: &Query) -> Vec<Place> {
    let mut places: Vec<Place> = engine
        .board()
        .ballots()
        .filter(|ballot| query.states.is_empty() || query.states.contains(&ballot.state))
        .map(|ballot| (std::cmp::Reverse(ballot.opened_ms), ballot.tx_id.clone()))
        .filter(|place| query.after.as_ref().is_none_or(|after| place > after))
        .collect();
    if places.len() > query.page {
        places.select_nth_unstable(query.page);
        places.truncate(query.page + 1);
    }
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(request: ListRequest) -> &'static str {
        match Query::read(request) {
            Err(ApiError::Invalid { field, .. }) => field,
            _ => panic!("taken"),
        }
    }

    #[test]
    fn tokens_come_back_and_others_do_not() {
        let place = (std::cmp::Reverse(u64::MAX), TxId::new("a:b.c").unwrap());
        assert_eq!(read_token(&token(&place)), Some(place));
        for bad in ["", "zz", "00", &hex::encode("1/"), &hex::encode("x/tx")] {
            assert_eq!(read_token(bad), None, "{bad}");
        }
    }

    #[test]
    fn requests_are_checked() {
        let request = ListRequest::default();
        assert_eq!(Query::read(request.clone()).unwrap().page, DEFAULT_PAGE);
        let states = vec![99];
        assert_eq!(
            field(ListRequest {
                states,
                ..request.clone()
            }),
            "states"
        );
        let states = vec![0];
        assert_eq!(
            field(ListRequest {
                states,
                ..request.clone()
            }),
            "states"
        );
        let page_size = 1001;
        assert_eq!(
            field(ListRequest {
                page_size,
                ..request.clone()
            }),
            "page_size"
        );
        let page_token = "x".to_owned();
        assert_eq!(
            field(ListRequest {
                page_token,
                ..request
            }),
            "page_token"
        );
    }
}
