//! Types of columns, as the catalogue writes them, in the words of the engine.

/// The engine's word for a type such as `array<struct<a:int,b:string>>`.
///
/// # Errors
/// A text that names what is no type, or a type that is not read here.
pub fn to_engine(text: &str) -> Result<String, String> {
    let lower = text.trim().to_lowercase();
    let mut parser = Parser { text: &lower, rest: &lower };
    let found = parser.one()?;
    if parser.rest.trim().is_empty() { Ok(found) } else { Err(parser.odd()) }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Parser<'_> {
    fn odd(&self) -> String {
        format!("the type {:?} cannot be read from {:?} on", self.text, self.rest)
    }

    fn skip(&mut self, wanted: char) -> Result<(), String> {
        self.rest = self.rest.trim_start();
        self.rest = self.rest.strip_prefix(wanted).ok_or_else(|| self.odd())?;
        Ok(())
    }

    fn has(&mut self, wanted: char) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.starts_with(wanted)
    }

    fn word(&mut self) -> &str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|one: char| !(one.is_alphanumeric() || one == '_'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// Numbers in parentheses, if there are any.
    fn sizes(&mut self) -> Result<Vec<u32>, String> {
        let mut sizes = Vec::new();
        if !self.has('(') {
            return Ok(sizes);
        }
        self.skip('(')?;
        loop {
            let odd = self.odd();
            sizes.push(self.word().parse().map_err(|_| odd)?);
            if !self.has(',') {
                break;
            }
            self.skip(',')?;
        }
        self.skip(')')?;
        Ok(sizes)
    }

    fn one(&mut self) -> Result<String, String> {
        let whole = self.text.to_owned();
        let word = self.word().to_owned();
        let plain = match word.as_str() {
            "boolean" => "BOOLEAN",
            "tinyint" => "TINYINT",
            "smallint" => "SMALLINT",
            "int" | "integer" => "INTEGER",
            "bigint" => "BIGINT",
            "float" | "real" => "FLOAT",
            "double" => {
                if self.rest.trim_start().starts_with("precision") {
                    self.word();
                }
                "DOUBLE"
            }
            "string" => "VARCHAR",
            "varchar" | "char" => {
                self.sizes()?;
                "VARCHAR"
            }
            "binary" => "BLOB",
            "date" => "DATE",
            "timestamp" => {
                self.sizes()?;
                "TIMESTAMP"
            }
            "decimal" | "numeric" => return self.decimal(),
            "array" => {
                self.skip('<')?;
                let element = self.one()?;
                self.skip('>')?;
                return Ok(format!("{element}[]"));
            }
            "map" => {
                self.skip('<')?;
                let key = self.one()?;
                self.skip(',')?;
                let value = self.one()?;
                self.skip('>')?;
                return Ok(format!("MAP({key}, {value})"));
            }
            "struct" => return self.structure(),
            _ => return Err(format!("the type {whole:?} is not read here")),
        };
        Ok(plain.to_owned())
    }

    fn decimal(&mut self) -> Result<String, String> {
        match self.sizes()?.as_slice() {
            [] => Ok("DECIMAL(10, 0)".into()),
            [precision] if (1..=38).contains(precision) => Ok(format!("DECIMAL({precision}, 0)")),
            [precision, scale] if (1..=38).contains(precision) && scale <= precision => {
                Ok(format!("DECIMAL({precision}, {scale})"))
            }
            _ => Err(format!("the type {:?} has a precision that is none", self.text)),
        }
    }

    fn structure(&mut self) -> Result<String, String> {
        self.skip('<')?;
        let mut members = Vec::new();
        loop {
            let name = self.word().to_owned();
            if name.is_empty() {
                return Err(self.odd());
            }
            self.skip(':')?;
            members.push(format!("\"{name}\" {}", self.one()?));
            if !self.has(',') {
                break;
            }
            self.skip(',')?;
        }
        self.skip('>')?;
        Ok(format!("STRUCT({})", members.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::to_engine;

    #[test]
    fn types_of_the_catalogue_become_those_of_the_engine() {
        for (hive, engine) in [
            ("int", "INTEGER"),
            ("STRING", "VARCHAR"),
            ("varchar(20)", "VARCHAR"),
            ("decimal(10,2)", "DECIMAL(10, 2)"),
            ("decimal", "DECIMAL(10, 0)"),
            ("double precision", "DOUBLE"),
            ("timestamp(3)", "TIMESTAMP"),
            ("array<int>", "INTEGER[]"),
            ("map<string,array<double>>", "MAP(VARCHAR, DOUBLE[])"),
            (
                "array<struct<a:int,b_c:map<string,bigint>>>",
                "STRUCT(\"a\" INTEGER, \"b_c\" MAP(VARCHAR, BIGINT))[]",
            ),
        ] {
            assert_eq!(to_engine(hive).as_deref(), Ok(engine), "{hive}");
        }
    }

    #[test]
    fn what_is_no_type_is_named() {
        for text in [
            "",
            "uniontype<int>",
            "array<int",
            "int)",
            "decimal(50,2)",
            "decimal(2,5)",
            "struct<>",
            "struct<a int>",
            "varchar(x)",
        ] {
            assert!(to_engine(text).is_err(), "{text}");
        }
        assert!(to_engine("interval").unwrap_err().contains("interval"));
    }
}
