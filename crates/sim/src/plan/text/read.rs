//! Reads a plan's text.

use std::collections::{BTreeMap, BTreeSet};
use std::str::{FromStr, SplitWhitespace};

use quorate_consensus::wire::{DissentPolicy, SilencePolicy};
use quorate_consensus::{Choice, Value};

use super::{
    Act, BoardKind, Disk, Forgery, Handed, Noise, Plan, PlanTextError, Problem, Shape, Step, Tx,
};
use crate::liars::LiarKind;

/// The most nodes of a plan.
const MOST_NODES: usize = 100;

impl FromStr for Plan {
    type Err = PlanTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reader = Reader::default();
        let mut last = 1;
        for (index, line) in text.lines().enumerate() {
            last = index + 1;
            let said = line.split('#').next().unwrap_or_default();
            let mut words = Words(said.split_whitespace());
            let Some(first) = words.0.next() else {
                continue;
            };
            let read = reader.line(first, &mut words);
            read.map_err(|problem| PlanTextError {
                line: last,
                problem,
            })?;
        }
        reader.plan().map_err(|problem| PlanTextError {
            line: last,
            problem,
        })
    }
}

/// What is left of a line.
struct Words<'a>(SplitWhitespace<'a>);

fn unexpected(found: &str, right: &str) -> Problem {
    Problem::Unexpected {
        found: found.into(),
        right: right.into(),
    }
}

impl<'a> Words<'a> {
    fn next(&mut self, right: &str) -> Result<&'a str, Problem> {
        let missing = || Problem::Missing {
            right: right.into(),
        };
        self.0.next().ok_or_else(missing)
    }

    fn parse<T: FromStr>(&mut self, right: &str) -> Result<T, Problem> {
        let word = self.next(right)?;
        word.parse().map_err(|_| unexpected(word, right))
    }

    /// This word and no other.
    fn word(&mut self, right: &str) -> Result<(), Problem> {
        match self.next(right)? {
            word if word == right => Ok(()),
            word => Err(unexpected(word, right)),
        }
    }

    /// Takes the next word if it is this one.
    fn takes(&mut self, word: &str) -> bool {
        let mut ahead = self.0.clone();
        let there = ahead.next() == Some(word);
        if there {
            self.0 = ahead;
        }
        there
    }

    /// One of these by its name.
    fn one_of<T: Copy>(&mut self, all: &[T], name: fn(T) -> &'static str) -> Result<T, Problem> {
        let names: Vec<_> = all.iter().map(|one| name(*one)).collect();
        let right = names.join(" or ");
        let word = self.next(&right)?;
        let mut all = all.iter().copied();
        let found = all.find(|one| name(*one) == word);
        found.ok_or_else(|| unexpected(word, &right))
    }

    fn ms(&mut self) -> Result<u64, Problem> {
        self.parse("milliseconds")
    }

    fn for_ms(&mut self) -> Result<u64, Problem> {
        self.word("for")?;
        self.ms()
    }

    fn tx(&mut self) -> Result<Tx, Problem> {
        let right = "a ballot like tx-3";
        let word = self.next(right)?;
        let number = word.strip_prefix("tx-").and_then(|n| n.parse().ok());
        number.map(Tx).ok_or_else(|| unexpected(word, right))
    }

    fn choice(&mut self) -> Result<Choice, Problem> {
        let right = "a number, bytes like 0x00ff (1 to 1024 of them) or abstain";
        let word = self.next(right)?;
        if word == "abstain" {
            return Ok(Choice::Abstention);
        }
        let value = match word.strip_prefix("0x") {
            Some(hex) => bytes(hex).and_then(|bytes| Value::data(&bytes).ok()),
            None => word.parse().ok().map(Value::Number),
        };
        value
            .map(Choice::Value)
            .ok_or_else(|| unexpected(word, right))
    }

    fn span(&mut self) -> Result<(u64, u64), Problem> {
        let right = "a span like 1..20, in milliseconds";
        let word = self.next(right)?;
        let ends = word.split_once("..");
        let ends = ends.and_then(|(least, most)| Some((least.parse().ok()?, most.parse().ok()?)));
        ends.ok_or_else(|| unexpected(word, right))
    }

    fn end(mut self) -> Result<(), Problem> {
        match self.0.next() {
            None => Ok(()),
            Some(found) => Err(Problem::Surplus {
                found: found.into(),
            }),
        }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) || !hex.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect()
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    nodes: Option<usize>,
    said: BTreeSet<String>,
    seed: u64,
    board: BoardKind,
    threshold: Option<usize>,
    dissent: Option<DissentPolicy>,
    silence: Option<SilencePolicy>,
    timeout: Option<u64>,
    settle: Option<u64>,
    skew: Option<u64>,
    confirmations: Option<u32>,
    submitters: Option<usize>,
    liars: BTreeMap<usize, LiarKind>,
    noise: Option<Noise>,
    calm: Option<u64>,
    steps: Vec<Step>,
}

impl Reader {
    fn line(&mut self, first: &str, words: &mut Words<'_>) -> Result<(), Problem> {
        if first == "at" {
            self.nodes()?;
            let at_ms = words.ms()?;
            let act = self.act(words)?;
            self.steps.push(Step { at_ms, act });
        } else {
            if !matches!(first, "liar") && !self.said.insert(first.into()) {
                return Err(Problem::Twice(first.into()));
            }
            self.header(first, words)?;
        }
        Words(words.0.clone()).end()
    }

    fn header(&mut self, first: &str, words: &mut Words<'_>) -> Result<(), Problem> {
        let from_one_to_n = |reader: &Self, words: &mut Words<'_>| {
            let nodes = reader.nodes()?;
            let right = format!("a number from 1 to {nodes}");
            let number: usize = words.parse(&right)?;
            match (1..=nodes).contains(&number) {
                true => Ok(number),
                false => Err(unexpected(&number.to_string(), &right)),
            }
        };
        match first {
            "nodes" => {
                let right = "a number from 1 to 100";
                let nodes: usize = words.parse(right)?;
                if !(1..=MOST_NODES).contains(&nodes) {
                    return Err(unexpected(&nodes.to_string(), right));
                }
                self.nodes = Some(nodes);
            }
            "threshold" => self.threshold = Some(from_one_to_n(self, words)?),
            "submitters" => self.submitters = Some(from_one_to_n(self, words)?),
            "board" => self.board = words.one_of(BoardKind::ALL, BoardKind::name)?,
            "dissent" => {
                let all = [DissentPolicy::Abort, DissentPolicy::Outvote];
                self.dissent = Some(words.one_of(&all, super::dissent_name)?);
            }
            "silence" => {
                let all = [SilencePolicy::Mark, SilencePolicy::Ban];
                self.silence = Some(words.one_of(&all, super::silence_name)?);
            }
            "timeout" => self.timeout = Some(words.ms()?),
            "settle" => self.settle = Some(words.ms()?),
            "skew" => self.skew = Some(words.ms()?),
            "confirmations" => self.confirmations = Some(words.parse("a number of blocks")?),
            "seed" => self.seed = words.parse("a number")?,
            "calm" => self.calm = Some(words.ms()?),
            "liar" => {
                let member = self.member(words)?;
                let kind = words.one_of(LiarKind::ALL, LiarKind::name)?;
                if self.liars.insert(member, kind).is_some() {
                    return Err(Problem::Twice("the liar".into()));
                }
            }
            "noise" => self.noise = Some(noise(words)?),
            _ => {
                let right = "at, nodes, board, threshold, dissent, silence, timeout, settle, skew, \
                             confirmations, submitters, seed, liar, noise or calm";
                return Err(unexpected(first, right));
            }
        }
        Ok(())
    }

    fn nodes(&self) -> Result<usize, Problem> {
        self.nodes.ok_or(Problem::NodesFirst)
    }

    fn member_of(&self, word: &str) -> Result<usize, Problem> {
        let nodes = self.nodes()?;
        let number = word.strip_prefix("node").and_then(|n| n.parse().ok());
        match number {
            Some(number) if (1..=nodes).contains(&number) => Ok(number - 1),
            _ => Err(unexpected(word, &format!("a member: node1 to node{nodes}"))),
        }
    }

    fn member(&self, words: &mut Words<'_>) -> Result<usize, Problem> {
        self.member_of(words.next("a member")?)
    }

    fn side(&self, words: &mut Words<'_>) -> Result<Vec<usize>, Problem> {
        match words.next("members like node1,node2, or nobody")? {
            "nobody" => Ok(Vec::new()),
            side => side.split(',').map(|word| self.member_of(word)).collect(),
        }
    }

    /// The member that something is away from, if not from all.
    fn away(&self, words: &mut Words<'_>) -> Result<Option<usize>, Problem> {
        words.word("away")?;
        match words.takes("from") {
            true => self.member(words).map(Some),
            false => Ok(None),
        }
    }

    fn act(&self, words: &mut Words<'_>) -> Result<Act, Problem> {
        let right = "vote, crash, backup, sleep, partition, bridge, one-way, break, full, slow, \
                     clock, store, replies, watch, re-read, compact, audit, chain, keys, reorganise, \
                     drop, fee, stranger, revert, give, impostor, unban, collect, forge, roll or fork";
        Ok(match words.next(right)? {
            "vote" => Act::Vote {
                node: self.member(words)?,
                tx: words.tx()?,
                choice: words.choice()?,
                handed: match words.takes("signed") {
                    true => Handed::Signed(words.parse("milliseconds like +150 or -150")?),
                    false => Handed::Choice,
                },
            },
            "crash" => Act::Crash {
                node: self.member(words)?,
                effects: match words.takes("after") {
                    true => words.parse("a number of effects")?,
                    false => 0,
                },
                disk: words.one_of(Disk::ALL, Disk::name)?,
                down_ms: {
                    words.word("down")?;
                    words.ms()?
                },
            },
            "backup" => Act::Backup {
                node: self.member(words)?,
            },
            "sleep" => Act::Sleep {
                for_ms: words.for_ms()?,
            },
            "partition" => Act::Partition {
                side: self.side(words)?,
                for_ms: words.for_ms()?,
            },
            "bridge" => Act::Bridge {
                bridge: self.member(words)?,
                side: {
                    words.word("side")?;
                    self.side(words)?
                },
                for_ms: words.for_ms()?,
            },
            "one-way" => Act::OneWay {
                from: self.member(words)?,
                to: {
                    words.word("to")?;
                    self.member(words)?
                },
                for_ms: words.for_ms()?,
            },
            "break" => Act::Break {
                a: self.member(words)?,
                b: self.member(words)?,
            },
            "full" => Act::Full {
                node: self.member(words)?,
                for_ms: words.for_ms()?,
            },
            "slow" => Act::Slow {
                node: self.member(words)?,
                by_ms: {
                    words.word("by")?;
                    words.ms()?
                },
                for_ms: words.for_ms()?,
            },
            "clock" => Act::Clock {
                node: self.member(words)?,
                by_ms: {
                    words.word("by")?;
                    words.parse("milliseconds like +150 or -150")?
                },
                for_ms: words.for_ms()?,
            },
            "store" => Act::StoreAway {
                node: self.away(words)?,
                for_ms: words.for_ms()?,
            },
            "replies" => {
                words.word("lost")?;
                let for_ms = words.for_ms()?;
                Act::RepliesLost { for_ms }
            }
            "watch" => {
                words.word("late")?;
                Act::WatchLate {
                    node: self.member(words)?,
                    for_ms: words.for_ms()?,
                }
            }
            "re-read" => Act::ReRead {
                node: self.member(words)?,
            },
            "compact" => Act::Compact,
            "audit" => {
                words.word("away")?;
                let for_ms = words.for_ms()?;
                Act::AuditAway { for_ms }
            }
            "chain" => Act::ChainAway {
                node: self.away(words)?,
                for_ms: words.for_ms()?,
            },
            "keys" => {
                words.word("away")?;
                words.word("from")?;
                Act::KeysAway {
                    node: self.member(words)?,
                    for_ms: words.for_ms()?,
                }
            }
            "reorganise" => Act::Reorganise {
                depth: words.parse("a number of blocks")?,
                drop: words.takes("lost"),
            },
            "drop" => {
                words.word("waiting")?;
                Act::DropWaiting
            }
            "fee" => Act::Fee {
                attempt: words.parse("a number")?,
            },
            "stranger" => Act::Stranger,
            "revert" => Act::Revert { tx: words.tx()? },
            "give" => {
                words.word("up")?;
                Act::GiveUp { tx: words.tx()? }
            }
            "impostor" => Act::Impostor {
                liar: self.member(words)?,
                name: {
                    words.word("as")?;
                    self.member(words)?
                },
                to: {
                    words.word("to")?;
                    self.member(words)?
                },
            },
            "unban" => Act::Unban {
                node: self.member(words)?,
            },
            "collect" => Act::Collect { tx: words.tx()? },
            "forge" => Act::Forge {
                what: words.one_of(Forgery::ALL, Forgery::name)?,
            },
            "roll" => {
                words.word("back")?;
                let entries = words.parse("a number of entries")?;
                Act::RollBack { entries }
            }
            "fork" => Act::Fork {
                side: self.side(words)?,
            },
            found => return Err(unexpected(found, right)),
        })
    }

    fn plan(mut self) -> Result<Plan, Problem> {
        let nodes = self.nodes()?;
        self.steps.sort_by_key(|step| step.at_ms);
        let last = self.steps.last().map_or(0, |step| step.at_ms);
        Ok(Plan {
            seed: self.seed,
            board: self.board,
            shape: Shape {
                nodes,
                threshold: self.threshold.unwrap_or((2 * nodes).div_ceil(3)),
                dissent: self.dissent.unwrap_or(DissentPolicy::Abort),
                silence: self.silence.unwrap_or(SilencePolicy::Mark),
                vote_timeout_ms: self.timeout.unwrap_or(5_000),
                settle_window_ms: self.settle.unwrap_or(50),
                clock_skew_ms: self.skew.unwrap_or(200),
                confirmations: self.confirmations.unwrap_or(1),
                submitters: self.submitters.unwrap_or(nodes),
            },
            liars: self.liars,
            noise: self.noise.unwrap_or(Noise::QUIET),
            steps: self.steps,
            calm_ms: self.calm.unwrap_or(last + 500),
        })
    }
}

fn noise(words: &mut Words<'_>) -> Result<Noise, Problem> {
    let mut noise = Noise::QUIET;
    let share = "a share of a thousand";
    while let Some(word) = words.0.next() {
        match word {
            "frame" => noise.frame_ms = words.span()?,
            "store" => noise.store_ms = words.span()?,
            "watch" => noise.watch_ms = words.span()?,
            "answer" => noise.answer_ms = words.span()?,
            "twice" => noise.twice = words.parse(share)?,
            "overtaken" => noise.overtaken = words.parse(share)?,
            "lost" => noise.lost = words.parse(share)?,
            "vanished" => noise.vanished = words.parse(share)?,
            "reply-lost" => noise.reply_lost = words.parse(share)?,
            "store-refuses" => noise.store_refuses = words.parse(share)?,
            "chain-lost" => noise.chain_lost = words.parse(share)?,
            "clock-off" => noise.clock_off_ms = words.ms()?,
            found => {
                let right = "frame, store, watch, answer, twice, overtaken, lost, vanished, \
                             reply-lost, store-refuses, chain-lost or clock-off";
                return Err(unexpected(found, right));
            }
        }
    }
    Ok(noise)
}
