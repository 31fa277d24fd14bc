//! The IAM policies that stand in a text for people, as one policy.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::Failure;
use crate::arguments::Arguments;

/// Reads a text from standard input and prints one policy of all its permissions, or the names of its actions.
pub(crate) fn print(arguments: &Arguments) -> Result<(), Failure> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| Failure::Failed(format!("standard input cannot be read: {error}")))?;
    let statements = permissions(&text).map_err(Failure::Failed)?;
    if arguments.has("actions") {
        for action in actions(&statements) {
            println!("{action}");
        }
        return Ok(());
    }
    let statements = match arguments.text("without") {
        Some(action) => without(statements, action).map_err(Failure::Failed)?,
        None => statements,
    };
    println!("{}", json!({"Version": "2012-10-17", "Statement": statements}));
    Ok(())
}

/// A value that may stand alone or in a list.
fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

/// The statements of every JSON document whose first line begins with `{` and whose last one is `}`, indented alike.
/// Trust policies, which name principals, are read and left out.
fn permissions(text: &str) -> Result<Vec<Value>, String> {
    let mut statements = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let begin = line.trim_start();
        if !begin.starts_with('{') {
            continue;
        }
        let indent = &line[..line.len() - begin.len()];
        let mut document = line.to_owned();
        let end = format!("{indent}}}");
        while !document.ends_with('}') || !document.lines().last().is_some_and(|last| last == end || last == line) {
            document.push('\n');
            document.push_str(lines.next().ok_or_else(|| format!("this document has no end:\n{document}"))?);
        }
        let parsed: Value = serde_json::from_str(&document).map_err(|error| format!("{error} in:\n{document}"))?;
        let found = list(&parsed["Statement"]);
        statements.extend(found.into_iter().filter(|statement| statement.get("Principal").is_none()));
    }
    if statements.is_empty() { Err(String::from("the text holds no IAM policy")) } else { Ok(statements) }
}

/// `ACTION` of each statement with its number, since source and destination may both need one: `1:s3:GetObject`.
fn actions(statements: &[Value]) -> Vec<String> {
    let of = |(number, statement): (usize, &Value)| {
        list(&statement["Action"])
            .into_iter()
            .filter_map(move |action| action.as_str().map(|action| format!("{number}:{action}")))
    };
    (1..).zip(statements).flat_map(of).collect()
}

fn without(mut statements: Vec<Value>, numbered: &str) -> Result<Vec<Value>, String> {
    let none = || format!("{numbered} is no action of the policies");
    let (number, action) = numbered.split_once(':').ok_or_else(none)?;
    let at = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1)).ok_or_else(none)?;
    let statement = statements.get_mut(at).ok_or_else(none)?;
    let all = list(&statement["Action"]);
    let left: Vec<_> = all.iter().filter(|it| *it != action).cloned().collect();
    if left.len() == all.len() {
        return Err(none());
    }
    statement["Action"] = Value::Array(left);
    statements.retain(|statement| statement["Action"].as_array().is_none_or(|actions| !actions.is_empty()));
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTES: &str = r#"
The source:
  {
    "Version": "2012-10-17",
    "Statement": [
      {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::logs"},
      {"Effect": "Allow", "Action": ["s3:GetObject", "s3:DeleteObject"], "Resource": "arn:aws:s3:::logs/*"}
    ]
  }
The destination, on one line:
{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::rollups/*"}}
And the trust policy:
{
  "Statement": [{"Effect": "Allow", "Principal": {"Federated": "x"}, "Action": "sts:AssumeRoleWithWebIdentity"}]
}
"#;

    #[test]
    fn permissions_are_gathered_and_trust_is_not() {
        let found = permissions(NOTES).expect("valid");
        assert_eq!(actions(&found), ["1:s3:ListBucket", "2:s3:GetObject", "2:s3:DeleteObject", "3:s3:GetObject"]);
    }

    #[test]
    fn one_permission_is_taken_away_where_it_stands() {
        let left = without(permissions(NOTES).expect("valid"), "2:s3:GetObject").expect("it was there");
        assert_eq!(actions(&left), ["1:s3:ListBucket", "2:s3:DeleteObject", "3:s3:GetObject"]);
        let left = without(left, "1:s3:ListBucket").expect("it was there");
        assert_eq!(left.len(), 2, "a statement without an action is no statement");
        without(left, "2:s3:PutObject").expect_err("it was not there");
    }

    #[test]
    fn a_policy_that_is_no_json_is_found() {
        permissions(&NOTES.replace("\"Resource\": \"arn:aws:s3:::logs\"", "\"Resource\":")).expect_err("not valid");
        permissions("nothing at all").expect_err("no policy");
    }
}
