//! Sets quantities and sizes.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Error, Printer,
    commands::{Session, read},
};

#[derive(Debug, Deserialize)]
struct Formation {
    r#type: String,
    quantity: u64,
    size: String,
}

pub(in crate::commands) async fn run(
    session: &Session,
    app: &str,
    changes: &[String],
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let updates = changes.iter().map(|text| change(text)).collect::<Result<Vec<_>, _>>()?;
    let body = json!({ "updates": updates });
    printer.begin("Scaling dynos");
    let answer: Value = session.api.call(Method::PATCH, &format!("/apps/{app}/formation"), Some(&body)).await?;
    let now: Vec<Formation> = read(answer.clone())?;
    let now: Vec<_> = now.iter().map(|f| format!("{} at {}:{}", f.r#type, f.quantity, f.size)).collect();
    printer.done(&format!("done, now running {}", now.join(", ")));
    if printer.is_json() { printer.json(&answer) } else { Ok(()) }
}

/// `web=2`, `worker+1:standard-2x`. Relative quantities keep their sign: the server knows what is.
fn change(text: &str) -> Result<Value, Error> {
    let wrong = || Error::Usage(format!("{text} is invalid: it must be like web=2, worker+1 or web=2:standard-2x"));
    let at = text.find(['=', '+', '-']).ok_or_else(wrong)?;
    let (process_type, rest) = text.split_at(at);
    let (quantity, size) = rest.split_once(':').map_or((rest, None), |(quantity, size)| (quantity, Some(size)));
    let quantity = quantity.strip_prefix('=').unwrap_or(quantity);
    let digits = quantity.trim_start_matches(['+', '-']);
    if process_type.is_empty() || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let mut change = json!({ "type": process_type, "quantity": quantity });
    if let Some(size) = size {
        change["size"] = Value::from(size);
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_people_write_them() {
        assert_eq!(change("web=2").expect("valid"), json!({"type": "web", "quantity": "2"}));
        let relative = json!({"type": "worker", "quantity": "+1", "size": "standard-2x"});
        assert_eq!(change("worker+1:standard-2x").expect("valid"), relative);
        for bad in ["web", "=2", "web=", "web=two", "web:2"] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }
}
