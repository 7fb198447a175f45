//! The options for printing a list

use clap::Args;

/// The options for printing a list.
#[derive(Args, Clone, Debug)]
pub struct Listing {
    /// Print it as a table (text), as json, or only these columns, in lower case: name,state
    #[arg(long, short_alias = 'o', alias = "output", default_value = "text", value_name = "text|json|COLUMN,…", value_parser = ListFormat::parse)]
    pub format: ListFormat,
    /// Print only the names or ids, one per line
    #[arg(short, long, conflicts_with = "format")]
    pub quiet: bool,
    /// Print whole ids, and do not cut columns to fit the screen
    #[arg(long)]
    pub no_trunc: bool,
}

/// The format of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListFormat {
    /// A table with all columns.
    Text,
    /// For programs.
    Json,
    /// A table with these columns, in this order.
    Columns(Vec<String>),
}

impl Listing {
    /// A table with all columns.
    pub fn table() -> Self {
        Self { format: ListFormat::Text, quiet: false, no_trunc: false }
    }
}

impl ListFormat {
    /// Parses `text`, `json`, or names of columns.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" | "table" | "wide" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ if text.contains("{{") => {
                Err("podctl has no templates: give columns, such as name,state, or json".to_owned())
            }
            _ => Ok(Self::Columns(text.split(',').map(|name| name.trim().to_lowercase()).collect())),
        }
    }

    /// The columns that were chosen; `None` for all of them.
    pub fn columns(&self) -> Option<&[String]> {
        match self {
            Self::Columns(names) => Some(names),
            Self::Text | Self::Json => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_formats_or_columns() {
        assert_eq!(ListFormat::parse("json"), Ok(ListFormat::Json));
        let columns = ListFormat::parse("Name, in pod").unwrap();
        assert_eq!(columns.columns().unwrap(), ["name", "in pod"]);
        assert!(ListFormat::parse("{{.Name}}").unwrap_err().contains("name,state"));
    }
}
