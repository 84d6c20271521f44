//! Shows how long dynos ran within a month: as a table, JSON or CSV.

use dozen_api::platform::usage::Usage;
use dozen_domain::usage::Month;

use crate::{Error, Printer, commands::Session};

/// How to write it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Table,
    Json,
    Csv,
}

pub(super) async fn run(
    session: &Session,
    app: Option<String>,
    month: Option<Month>,
    form: Form,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let resource = app.map_or_else(|| "/usage".to_owned(), |app| format!("/apps/{app}/usage"));
    let query = month.map_or_else(String::new, |month| format!("?month={month}"));
    let usage: Vec<Usage> = session.api.get(&format!("{resource}{query}")).await?;
    match form {
        Form::Json => printer.line(&json(&usage)),
        Form::Csv => {
            printer.line(HEAD)?;
            usage.iter().try_for_each(|one| printer.line(&fields(one).join(",")))
        }
        Form::Table => table(&usage, printer),
    }
}

const HEAD: &str = "app,month,type,size,dyno_seconds,dynos,estimated";

/// None of them can hold a comma or a quote.
fn fields(usage: &Usage) -> Vec<String> {
    vec![
        usage.app.name.clone(),
        usage.month.to_string(),
        usage.process_type.to_string(),
        usage.size.to_string(),
        usage.dyno_seconds.to_string(),
        usage.dynos.to_string(),
        usage.estimated.to_string(),
    ]
}

fn json(usage: &[Usage]) -> String {
    // A list of plain shapes can always be written.
    serde_json::to_string_pretty(usage).unwrap_or_default()
}

fn table(usage: &[Usage], printer: &mut Printer<'_>) -> Result<(), Error> {
    if usage.is_empty() {
        printer.note("No dyno ran in that month.");
    }
    let row = |one: &Usage| {
        let mark = if one.estimated { " (at least)" } else { "" };
        let dynos = if one.dynos == 1 { "1 dyno".to_owned() } else { format!("{} dynos", one.dynos) };
        let seconds = format!("{} s{mark}", one.dyno_seconds);
        vec![one.app.name.clone(), one.process_type.to_string(), one.size.to_string(), seconds, dynos]
    };
    printer.table(&usage.iter().map(row).collect::<Vec<_>>())
}
