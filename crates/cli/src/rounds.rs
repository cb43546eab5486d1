//! One act at several nodes, and what each of them said.

use prost::Message;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Out, Tone, message_json};
use crate::remote::Target;

/// What each node said, by its context's name.
pub(crate) struct Round<A> {
    /// In the order of the nodes.
    pub(crate) answers: Vec<(String, Outcome<A>)>,
}

/// Does it at every node, all at once.
pub(crate) async fn each<A>(
    targets: Vec<Target>,
    act: impl AsyncFn(&Target) -> Outcome<A>,
) -> Round<A> {
    let acts = targets.iter().map(|target| act(target));
    let answers = futures_util::future::join_all(acts).await;
    let names = targets.iter().map(|target| target.name.clone());
    Round {
        answers: names.zip(answers).collect(),
    }
}

/// Does it at one node after the other.
pub(crate) async fn in_turn<A>(
    targets: Vec<Target>,
    mut act: impl AsyncFnMut(&Target) -> Outcome<A>,
) -> Round<A> {
    let mut answers = Vec::new();
    for target in &targets {
        answers.push((target.name.clone(), act(target).await));
    }
    Round { answers }
}

impl<A> Round<A> {
    /// The answers of those who gave one.
    pub(crate) fn good(&self) -> impl Iterator<Item = &A> {
        self.answers
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().ok())
    }

    /// Shows what came of it at each node, and gives how it ended: as [`Round::end`].
    pub(crate) fn shown(self, out: Out, told: impl Fn(&A) -> String) -> Outcome {
        let mut table = out.table(&["node", "what came of it"]);
        for (name, answer) in &self.answers {
            let (tone, text) = match answer {
                Ok(answer) => (Tone::Good, told(answer)),
                Err(failure) => (Tone::Bad, failure.to_string()),
            };
            table.add_row([out.cell(Tone::Plain, name), out.cell(tone, text)]);
        }
        out.line(table);
        self.end("acted")
    }

    /// Success if every node gave an answer. The failures were shown.
    ///
    /// # Errors
    /// The only failure; or that so many of several failed.
    pub(crate) fn end(mut self, done: &str) -> Outcome {
        let all = self.answers.len();
        let bad = all - self.good().count();
        if bad == 0 {
            return Ok(());
        }
        if all == 1
            && let Some((_, Err(failure))) = self.answers.pop()
        {
            return Err(failure);
        }
        let exit = match bad == all {
            true => Exit::Unavailable,
            false => Exit::Failed,
        };
        Err(
            Failure::new(exit, format!("{bad} of {all} nodes have not {done}"))
                .hint("the answers name them; repeating it is safe"),
        )
    }
}

impl<A: Message> Round<A> {
    /// One object per node: `node`, `ok`, and `answer` or `error`.
    pub(crate) fn json(&self, message: &str) -> Value {
        let nodes = self.answers.iter().map(|(name, answer)| match answer {
            Ok(answer) => json!({
                "node": name,
                "ok": true,
                "answer": message_json(message, answer),
            }),
            Err(failure) => json!({ "node": name, "ok": false, "error": failure.to_json() }),
        });
        nodes.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(answers: &[bool]) -> Round<()> {
        let answer = |good: &bool| good.then_some(()).ok_or_else(|| Failure::usage("no"));
        Round {
            answers: answers
                .iter()
                .map(|good| ("n".into(), answer(good)))
                .collect(),
        }
    }

    #[test]
    fn the_exit_tells_how_many_failed() {
        assert!(round(&[true, true]).end("acted").is_ok());
        assert_eq!(
            round(&[false]).end("acted").unwrap_err().exit(),
            Exit::Usage
        );
        let some = round(&[true, false]).end("acted").unwrap_err();
        assert_eq!(some.exit(), Exit::Failed);
        assert_eq!(some.message(), "1 of 2 nodes have not acted");
        let none = round(&[false, false]).end("acted").unwrap_err();
        assert_eq!(none.exit(), Exit::Unavailable);
    }
}
