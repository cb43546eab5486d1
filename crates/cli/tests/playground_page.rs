//! docs/playground.md is a session: every line of it runs, and what the page shows is
//! what comes, but for times, ports and numbers that differ from run to run.

mod common;

use std::process::{Command, Stdio};

use common::{Dev, Home};

const PAGE: &str = include_str!("../../../docs/playground.md");

/// What the page says to type, and the lines that it shows.
fn session() -> Vec<(String, Vec<String>)> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in PAGE.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match line.strip_prefix("$ ") {
                Some(command) => lines.push((command.to_owned(), Vec::new())),
                None => {
                    let (_, shown) = lines.last_mut().expect("a command first");
                    shown.push(line.to_owned());
                }
            },
        }
    }
    lines
}

/// A line without what differs: times, ports, revisions, and how wide a table is.
fn plain(line: &str) -> String {
    let line = match line.find("  20") {
        // A revision and a moment, as `watch` begins its lines.
        Some(at) if line[..at].trim().bytes().all(|b| b.is_ascii_digit()) => {
            line[at..].split("  ").skip(2).collect::<Vec<_>>().join(" ")
        }
        _ => line.to_owned(),
    };
    let words = line
        .split_whitespace()
        .map(|word| match word.strip_prefix("127.0.0.1:") {
            Some(_) => "127.0.0.1",
            None => word,
        });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_line_of_the_page_is_true() {
    let home = Home::new();
    let begin = "quorate dev --clean --seed tour --vote-timeout 30\n";
    assert!(PAGE.contains(begin), "the page starts another cluster");
    let args = ["--clean", "--seed", "tour", "--vote-timeout", "30"];
    let _dev = Dev::start(&home, &args);
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_quorate"));
    let path = format!(
        "{}:{}",
        binary.parent().expect("a directory").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let session = session();
    assert!(session.len() > 25, "{}", session.len());
    for (command, shown) in session {
        // As a person's shell runs it.
        let output = Command::new("bash")
            .args(["-c", &command])
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("PATH", &path)
            .env("QUORATE_DEV_DIR", home.path().join("cluster"))
            .env_remove("QUORATE_CONFIG")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let came = [output.stdout, output.stderr].concat();
        let came = String::from_utf8(came).expect("text");
        let fails = shown.iter().any(|line| line.starts_with("error:"));
        assert_eq!(output.status.success(), !fails, "$ {command}\n{came}");
        let lines: Vec<_> = came.lines().map(plain).collect();
        for line in shown.iter().filter(|line| *line != "…") {
            assert!(
                lines.contains(&plain(line)),
                "$ {command}\nthe page shows\n{line}\nbut there came\n{came}"
            );
        }
    }
}
