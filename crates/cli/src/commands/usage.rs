//! Shows how long dynos ran within a month: as a table, JSON or CSV.

use dozen_api::platform::usage::Usage;
use dozen_domain::usage::Month;

use crate::{Error, Printer, commands::Session};

pub(super) async fn run(
    session: &Session,
    app: Option<String>,
    month: Option<Month>,
    csv: bool,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let resource = app.map_or_else(|| "/usage".to_owned(), |app| format!("/apps/{app}/usage"));
    let query = month.map_or_else(String::new, |month| format!("?month={month}"));
    let usage: Vec<Usage> = session.api.get(&format!("{resource}{query}")).await?;
    if printer.is_json() {
        return printer.json(&usage);
    }
    if csv {
        printer.line(HEAD)?;
        return usage.iter().try_for_each(|one| printer.line(&fields(one).join(",")));
    }
    table(&usage, printer)
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
