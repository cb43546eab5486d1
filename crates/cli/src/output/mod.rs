//! What a command prints: tables and sentences for people, or JSON for machines;
//! colours on a terminal only.

mod events;
mod json;
mod ledger;
mod words;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::Value;

pub(crate) use events::{event_line, event_text, message_line};
pub(crate) use json::message_json;
pub(crate) use ledger::{path_text, print_ballot};
pub(crate) use words::{ago, choice_text, clock, clock_ms, short_hex, standing_word, state_word};

use crate::failure::Failure;

/// How wide a table is where no terminal says it.
pub(crate) const USUAL_WIDTH: u16 = 100;

/// A terminal that says it is narrower than this does not know.
const NARROW: u16 = 40;

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    json: bool,
    colour: bool,
    terminal: bool,
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Something is wrong.
    Bad,
    /// Worth a look.
    Warn,
    /// Of less weight.
    Faint,
    /// Like the rest.
    Plain,
}

impl Out {
    /// Looks at the terminal and NO_COLOR.
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            colour: terminal && !json && !refused,
            terminal,
        }
    }

    /// A person may be looking at a terminal: progress may be shown on it.
    pub(crate) fn is_live(self) -> bool {
        self.terminal && !self.json && io::stderr().is_terminal()
    }

    /// One line for people; nothing when JSON is asked for.
    pub(crate) fn line(self, text: impl Display) {
        if !self.json {
            write_out(&format!("{text}\n"));
        }
    }

    /// One JSON document on one line; nothing when it is for people.
    pub(crate) fn json(self, value: &Value) {
        if self.json {
            write_out(&format!("{value}\n"));
        }
    }

    /// One JSON document over several lines; nothing when it is for people.
    pub(crate) fn json_pretty(self, value: &Value) {
        if self.json {
            write_out(&format!("{value:#}\n"));
        }
    }

    /// Raw text, whoever reads it.
    pub(crate) fn raw(self, text: &str) {
        write_out(text);
    }

    /// A remark beside the answer, on standard error, so that pipes stay clean.
    pub(crate) fn note(self, text: impl Display) {
        // Nobody can be told that standard error is gone.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// The failure, on standard error.
    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            self.note(serde_json::json!({ "error": failure.to_json() }));
            return;
        }
        let red = io::stderr().is_terminal() && self.colour;
        let label = if red {
            "\x1b[1;31merror:\x1b[0m"
        } else {
            "error:"
        };
        self.note(format!("{label} {failure}"));
        if let Some(hint) = failure.advice() {
            self.note(format!("  try: {hint}"));
        }
    }

    /// Text in a colour, if colours are wanted.
    pub(crate) fn paint(self, tone: Tone, text: impl Display) -> String {
        let code = match tone {
            _ if !self.colour => return text.to_string(),
            Tone::Plain => return text.to_string(),
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warn => "33",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Text in bold, if colours are wanted.
    pub(crate) fn bold(self, text: impl Display) -> String {
        if self.colour {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    /// A table with these headings, or without any.
    pub(crate) fn table(self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic);
        if !headings.is_empty() {
            let cells = headings
                .iter()
                .map(|heading| self.cell(Tone::Faint, heading));
            table.set_header(cells);
        }
        if self.colour {
            table.enforce_styling();
        } else if !self.terminal {
            table.force_no_tty();
        }
        if table.width().is_some_and(|width| width < NARROW) {
            table.set_width(USUAL_WIDTH);
        }
        table
    }

    /// A table of names and texts, one pair a row. Long texts are wrapped.
    pub(crate) fn pairs<'a>(
        self,
        rows: impl IntoIterator<Item = (&'a str, Tone, String)>,
    ) -> Table {
        let mut table = self.table(&[]);
        for (name, tone, text) in rows {
            table.add_row([self.cell(Tone::Faint, name), self.cell(tone, text)]);
        }
        wrap(&mut table);
        table
    }

    /// A table's cell in a colour.
    pub(crate) fn cell(self, tone: Tone, text: impl Display) -> Cell {
        let cell = Cell::new(text);
        match tone {
            // Asked not to, the table would still print the ends of colours.
            _ if !self.colour => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Bad => cell.fg(Color::Red),
            Tone::Warn => cell.fg(Color::Yellow),
            Tone::Faint => cell.fg(Color::DarkGrey),
            Tone::Plain => cell,
        }
    }
}

/// Wraps a table of long texts where no terminal says how wide it may be.
pub(crate) fn wrap(table: &mut Table) {
    if table.width().is_none() {
        table.set_width(USUAL_WIDTH);
    }
}

/// Writes to standard output; when the reader has gone away there is nobody left to
/// print for.
fn write_out(text: &str) {
    let mut stdout = io::stdout().lock();
    if stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_without_colours_gets_no_codes() {
        let out = |colour| Out {
            json: false,
            colour,
            terminal: true,
        };
        for colour in [false, true] {
            let mut table = out(colour).table(&["state"]);
            table.enforce_styling();
            table.add_row([out(colour).cell(Tone::Good, "CONFIRMED")]);
            assert_eq!(table.to_string().contains('\x1b'), colour);
        }
    }
}
