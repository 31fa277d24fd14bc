//! What README.md says of the settings, compared with the settings.

use s3_log_rollup::config::{Fallback, VARIABLES, Variable};

const README: &str = include_str!("../../README.md");
const BEGIN: &str = "<!-- variables:begin -->\n";
const END: &str = "<!-- variables:end -->";
/// Of the variables named from here on, none is a setting.
const NOT_YET: &str = "## What is not there yet\n";

fn row(Variable { name, default, meaning }: &Variable) -> String {
    let default = match default {
        Fallback::Value(value) => format!("`{value}`"),
        words => words.to_string(),
    };
    format!("| `{name}` | {default} | {} |\n", meaning.replace('{', "`{").replace('}', "}`"))
}

#[test]
fn the_table_of_variables_is_that_of_the_program() {
    let table = VARIABLES.iter().map(row).collect::<String>();
    let table = format!("| variable | default | meaning |\n|---|---|---|\n{table}");
    let shown = README.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).expect("the marks").0;
    assert!(shown == table, "README.md needs this between its marks:\n{table}");
}

#[test]
fn every_variable_named_is_a_setting_or_is_said_to_be_missing() {
    let (there, missing) = README.split_once(NOT_YET).expect("the section");
    for name in names(there) {
        assert!(is_setting(&name), "{name} is no setting");
    }
    for name in names(missing) {
        assert!(!is_setting(&name), "{name} is a setting");
    }
}

fn is_setting(name: &str) -> bool {
    VARIABLES.iter().any(|variable| variable.name == name)
}

fn names(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'));
    words.filter(|word| word.starts_with("ROLLUP_")).map(str::to_owned)
}
