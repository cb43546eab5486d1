//! The golden scripts: schedules that a reader should see, with the stories that they
//! give. A script's file is a plan's text, a line `---`, and the story.

use crate::plan::Plan;
use crate::plan::text::PlanTextError;

/// What is between a plan and its story.
pub const CUT: &str = "---\n";

const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/golden.rs"));

/// A golden script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name: that of its file.
    pub name: &'static str,
    text: &'static str,
}

/// All of them, in order of their names.
pub fn scripts() -> impl Iterator<Item = Script> {
    let files = FILES.iter();
    files.map(|&(name, text)| Script { name, text })
}

impl Script {
    /// What a reader should see, in a sentence: the comment that it begins with.
    pub fn about(&self) -> String {
        let lines = self.text.lines();
        let comment = lines.map_while(|line| line.strip_prefix('#'));
        let words: Vec<_> = comment.map(str::trim).collect();
        words.join(" ")
    }

    /// Its plan.
    ///
    /// # Errors
    /// When its text is no plan: of the scripts here, none.
    pub fn plan(&self) -> Result<Plan, PlanTextError> {
        plan_of(self.text)
    }

    /// The story that it gives.
    pub fn story(&self) -> &'static str {
        self.text.split_once(CUT).map_or("", |(_, story)| story)
    }
}

/// The plan in a script's text, whether or not a story follows it.
///
/// # Errors
/// When the text is no plan.
pub fn plan_of(text: &str) -> Result<Plan, PlanTextError> {
    text.split_once(CUT).map_or(text, |(plan, _)| plan).parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_have_names_plans_and_stories() {
        assert!(scripts().count() > 0);
        for script in scripts() {
            let plan = script.plan().expect(script.name);
            assert!(!plan.steps.is_empty(), "{}", script.name);
            assert!(script.story().contains(" s "), "{}", script.name);
            assert!(
                script.about().ends_with('.'),
                "{}: {}",
                script.name,
                script.about()
            );
        }
    }
}
