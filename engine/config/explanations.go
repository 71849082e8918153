package config

import "strings"

// explanations is the one table of codes. A new diagnostic has a line here, with the next number of its kind; the examples
// are tried by the tests.
var explanations = []Explanation{
	{
		Code: "NSC0001", Summary: "Syntax error",
		Text: "The file is not written as HCL wants it. The place is where the reading stopped; the mistake is there or shortly before. Text must be in quotes, an attribute is NAME = VALUE, and each stands on a line of its own.",
		Wrong: `retention {
  raw = 
}
`,
		Right: `retention {
  raw = "90d"
}
`,
		also: []string{
			"Argument definition required", "Argument or block definition required", "Attribute name required", "Extra characters after expression",
			"Extra characters after interpolation expression", "Extra characters in …", "Index value required", "Invalid 'for' directive",
			"Invalid 'for' expression", "Invalid argument name", "Invalid attribute name", "Invalid block definition", "Invalid escape sequence",
			"Invalid expression", "Invalid legacy index syntax", "Invalid number literal", "Invalid single-argument block definition",
			"Invalid string literal", "Invalid template control keyword", "Invalid template directive", "Missing argument separator",
			"Missing attribute separator", "Missing attribute value", "Missing close bracket on index", "Missing close bracket on splat index",
			"Missing closing parenthesis", "Missing expression", "Missing false expression in conditional", "Missing function name",
			"Missing item separator", "Missing key/value separator", "Missing newline after argument", "Missing newline after block definition",
			"Missing open parenthesis", "Nested splat expression not allowed", "Unbalanced parentheses", "Unclosed index brackets",
			"Unclosed template interpolation sequence", "Unexpected …", "Unsupported operator", "Unterminated function call",
			"Unterminated object constructor expression", "Unterminated string literal", "Unterminated template string",
			"Unterminated tuple constructor expression", "Variable name required",
		},
	},
	{
		Code: "NSC0002", Summary: "Unclosed configuration block",
		Text: "A block begins with { and the file ends before its }. Count the braces below the place, or run nsready fmt on an earlier version to see where the indentation breaks.",
		Wrong: `retention {
  raw = "90d"
`,
		Right: `retention {
  raw = "90d"
}
`,
		also: []string{"Unclosed configuration body"},
	},
	{
		Code: "NSC0003", Summary: "Unsupported argument",
		Text: "The block has no attribute of this name. It may be misspelt, or belong to another block.",
		Wrong: `retention {
  raw  = "90d"
  cold = "1d"
}
`,
		Right: `retention {
  raw            = "90d"
  compress_after = "1d"
}
`,
	},
	{
		Code: "NSC0004", Summary: "Unsupported block type",
		Text: "There is no block of this type here. It may be misspelt, or belong inside another: a device into a site, a site into a project, a project into a customer.",
		Wrong: `customer "acme" {
  site "north" {
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    site "north" {
    }
  }
}
`,
	},
	{
		Code: "NSC0005", Summary: "Missing required argument",
		Text: "The block is not complete without this attribute.",
		Wrong: `retention {
}
`,
		Right: `retention {
  raw = "90d"
}
`,
	},
	{
		Code: "NSC0006", Summary: "Attribute redefined",
		Text: "An attribute can be set once in a block. Remove one of the two.",
		Wrong: `retention {
  raw = "90d"
  raw = "30d"
}
`,
		Right: `retention {
  raw = "30d"
}
`,
	},
	{
		Code: "NSC0007", Summary: "Extraneous label for …",
		Text: "A block has one name in quotes, or none.",
		Wrong: `customer "acme" "mills" {
}
`,
		Right: `customer "acme mills" {
}
`,
	},
	{
		Code: "NSC0008", Summary: "Missing name for …",
		Text: "A block of this type needs its name in quotes before the brace.",
		Wrong: `customer {
}
`,
		Right: `customer "acme" {
}
`,
	},
	{
		Code: "NSC0009", Summary: "Invalid multi-line string",
		Text: "Text in quotes ends on the line that it begins on. Write \\n for a new line, or use a heredoc.",
		Wrong: `customer "acme" {
  metadata = { note = "one
two" }
}
`,
		Right: `customer "acme" {
  metadata = { note = "one\ntwo" }
}
`,
	},
	{
		Code: "NSC0010", Summary: "Unclosed comment",
		Text: "A comment that begins with /* goes on to */. For a comment of one line write #.",
		Wrong: `/* the mill
customer "acme" {
}
`,
		Right: `/* the mill */
customer "acme" {
}
`,
	},
	{
		Code: "NSC0011", Summary: "Invalid heredoc",
		Text: "After << comes a marker made of letters and digits and then the end of the line; the text ends at a line with the marker alone.",
		Wrong: `customer "acme" {
  metadata = { note = << x }
}
`,
		Right: `customer "acme" {
  metadata = {
    note = <<EOT
      x
    EOT
  }
}
`,
	},
	{
		Code: "NSC0012", Summary: "Unbalanced brackets",
		Text: "A closing bracket does not fit the one that is open.",
		Wrong: `customer "acme" {
  metadata = { note = upper("x" }
}
`,
		Right: `customer "acme" {
  metadata = { note = upper("x") }
}
`,
	},
	{
		Code: "NSC0013", Summary: "Nesting too deep",
		Text: "Brackets, blocks, strings and templates may be nested 32 deep, so that no file can exhaust the reader. Name the inner parts with locals.",
		Wrong: `locals {
  a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
}
customer "acme" {
}
`,
		Right: `locals {
  a = [[[[1]]]]
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0014", Summary: "Too many operators",
		Text: "An expression has more operators, conditions among them, than the reader takes. Name parts of it with locals, or prepare the value in a CSV or JSON file.",
		Wrong: `locals {
  a = !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!true
}
customer "acme" {
}
`,
		Right: `locals {
  a = !true
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0015", Summary: "Invalid character",
		Text: "This character does not belong outside quotes. Word processors change straight quotes to curly ones.",
		Wrong: `customer “acme” {
}
`,
		Right: `customer "acme" {
}
`,
	},
	{
		Code: "NSC0016", Summary: "Number too long",
		Text: "A number may have up to 64 digits. An identifier that is made of digits belongs in quotes.",
		Wrong: `locals {
  a = 11111111111111111111111111111111111111111111111111111111111111111
}
customer "acme" {
}
`,
		Right: `locals {
  a = "11111111111111111111111111111111111111111111111111111111111111111"
}
customer "acme" {
}
`,
	},
	{Code: "NSC0017", Summary: "Text too long", Text: "A text with very many lines, or very many $ and % signs, takes the parser too long. Put it into a file of its own and read it with file(…)."},
	{Code: "NSC0018", Summary: "Line too long", Text: "A line may have up to 64 KiB. Break it; data belongs into a CSV or JSON file."},
	{Code: "NSC0019", Summary: "File too large", Text: "A file may have up to 64 MiB and 8 million words. Split it into several files in one directory, or keep the devices in a CSV file and repeat a block with for_each."},
	{Code: "NSC0020", Summary: "Invalid UTF-8", Text: "The file is not UTF-8. Save it as UTF-8; a spreadsheet's export calls it \"CSV UTF-8\".", also: []string{"Invalid character encoding"}},
	{Code: "NSC0021", Summary: "Byte order mark", Text: "The file contains a byte order mark (U+FEFF), which can't be seen. Save it as UTF-8 without one."},
	{Code: "NSC0022", Summary: "NUL byte", Text: "The file is binary, or UTF-16, or was damaged. Save it as UTF-8."},
	{Code: "NSC0023", Summary: "Control character", Text: "A control character, such as an escape sequence of a terminal, is in the file. Remove it; inside quotes it can be written \\uXXXX."},
	{Code: "NSC0024", Summary: "Bidirectional control character", Text: "The character reorders the text around it on the screen, so that the file reads differently from what it means. Remove it."},
	{Code: "NSC0025", Summary: "JSON syntax", Text: "A declaration is written in HCL's own syntax, in files whose names end in .hcl. Data in JSON can be read with jsondecode(file(…))."},
	{Code: "NSC0026", Summary: "Declaration not readable", Text: "The file or directory that -config names does not exist, is not a regular file, may not be read, or has no *.hcl file in it."},
	{
		Code: "NSC0027", Summary: "Nothing declared",
		Text: "A declaration without any object would retire the whole estate. It is taken for a file that was cut short.",
		Wrong: `locals {
  a = 1
}
`,
		Right: `customer "acme" {
}
`,
	},
	{Code: "NSC0028", Summary: "Too many objects", Text: "A declaration may have up to 2,000,000 objects. Split the estate into several registries."},
	{
		Code: "NSC0029", Summary: "Duplicate …",
		Text: "Two blocks declare the same thing. The names on the way to an object are its address, which must be unique: two devices of one site can't share a name. With for_each, the attribute name must differ from element to element.",
		Wrong: `customer "acme" {
}
customer "acme" {
}
`,
		Right: `customer "acme" {
}
customer "acme south" {
}
`,
	},
	{
		Code: "NSC0030", Summary: "Duplicate local value",
		Text: "A local value is set once in the declaration's files, and once in those of a module, in whichever locals block.",
		Wrong: `locals {
  a = 1
}
locals {
  a = 2
}
customer "acme" {
}
`,
		Right: `locals {
  a = 1
  b = 2
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0031", Summary: "Duplicate template",
		Text: "Templates have names that are unique in the whole declaration.",
		Wrong: `template "meter" {
  parameter "voltage" {
  }
}
template "meter" {
  parameter "current" {
  }
}
customer "acme" {
}
`,
		Right: `template "meter" {
  parameter "voltage" {
  }
  parameter "current" {
  }
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0032", Summary: "Duplicate key",
		Text: "An object has each of its keys once.",
		Wrong: `customer "acme" {
  metadata = { city = "Pune", city = "Nashik" }
}
`,
		Right: `customer "acme" {
  metadata = { city = "Pune" }
}
`,
	},
	{
		Code: "NSC0033", Summary: "Duplicate external ID", also: []string{"Duplicate ID"},
		Text: "An external id, or an id, is what a device is known by; events with it must lead to one device, so it is unique in the whole declaration.",
		Wrong: `customer "acme" {
  project "mill" {
    site "north" {
      device "a" {
        type        = "meter"
        external_id = "M-1"
      }
      device "b" {
        type        = "meter"
        external_id = "M-1"
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    site "north" {
      device "a" {
        type        = "meter"
        external_id = "M-1"
      }
      device "b" {
        type        = "meter"
        external_id = "M-2"
      }
    }
  }
}
`,
	},
	{
		Code: "NSC0034", Summary: "Invalid external ID", also: []string{"Invalid ID"},
		Text: "A space at the beginning or end of an external id can't be seen, and the device would not be found by it. An id is a UUID.",
		Wrong: `customer "acme" {
  project "mill" {
    site "north" {
      device "a" {
        type        = "meter"
        external_id = "M-1 "
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    site "north" {
      device "a" {
        type        = "meter"
        external_id = "M-1"
      }
    }
  }
}
`,
	},
	{
		Code: "NSC0035", Summary: "Missing name",
		Text: "A block with for_each is declared once for each element, and each needs another name. Set name from each.key or each.value.",
		Wrong: `customer "acme" {
  for_each = ["north", "south"]
}
`,
		Right: `customer "acme" {
  for_each = ["north", "south"]
  name     = "acme ${each.value}"
}
`,
	},
	{
		Code: "NSC0036", Summary: "Missing value",
		Text: "The attribute must have a value, and it is null.",
		Wrong: `retention {
  raw = null
}
`,
		Right: `retention {
  raw = "90d"
}
`,
	},
	{
		Code: "NSC0037", Summary: "Missing limit",
		Text: "The block exists for its limits and has none, or one of two that go together.",
		Wrong: `platform "queue_depth" {
}
`,
		Right: `platform "queue_depth" {
  warning = 1000
}
`,
	},
	{
		Code: "NSC0038", Summary: "Invalid name",
		Text: "A name has 1 to 128 bytes, does not begin or end with a space and has no invisible characters, so that what looks the same is the same.",
		Wrong: `customer " acme" {
}
`,
		Right: `customer "acme" {
}
`,
	},
	{
		Code: "NSC0039", Summary: "Invalid text",
		Text: "Short texts, such as a device's type, may not be empty, nor begin or end with a space; no text may have control characters.",
		Wrong: `customer "acme" {
  project "mill" {
    site "north" {
      device "a" {
        type = " meter"
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    site "north" {
      device "a" {
        type = "meter"
      }
    }
  }
}
`,
	},
	{
		Code: "NSC0040", Summary: "Invalid duration",
		Text: "A duration is text: numbers with the units d, h, m, s, ms, in this order, such as \"90d\", \"1h30m\" or \"250ms\". Some have a least value.",
		Wrong: `retention {
  raw = "90"
}
`,
		Right: `retention {
  raw = "90d"
}
`,
	},
	{
		Code: "NSC0041", Summary: "Invalid limit",
		Text: "The limit is outside of what makes sense for it, or is not written as it should be, such as a percentage as \"80%\".",
		Wrong: `platform "disk_usage" {
  critical = "180%"
}
`,
		Right: `platform "disk_usage" {
  critical = "80%"
}
`,
	},
	{
		Code: "NSC0042", Summary: "Invalid deadband",
		Text: "A deadband is how far a value must come back before its alert clears. It is not negative.",
		Wrong: `template "meter" {
  parameter "voltage" {
    threshold "high" {
      above    = 253
      deadband = -2
    }
  }
}
customer "acme" {
}
`,
		Right: `template "meter" {
  parameter "voltage" {
    threshold "high" {
      above    = 253
      deadband = 2
    }
  }
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0043", Summary: "Invalid value",
		Text: "The object can't be written as JSON, as which the registry keeps it.",
		Wrong: `customer "acme" {
  metadata = { note = "a\u0000b" }
}
`,
		Right: `customer "acme" {
  metadata = { note = "ab" }
}
`,
	},
	{
		Code: "NSC0044", Summary: "Invalid …",
		Text: "The attribute takes one of a few words, such as a variable's type, or a whole number in a range; the message lists them.",
		Wrong: `template "meter" {
  parameter "voltage" {
    type = "double"
  }
}
customer "acme" {
}
`,
		Right: `template "meter" {
  parameter "voltage" {
    type = "float"
  }
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0045", Summary: "Wrong type",
		Text: "The value is a text where a number is wanted, a single value where a list is, or the like. Cells of a CSV file are text; those that write numbers are taken for numbers where one is wanted.",
		Wrong: `customer "acme" {
  metadata = "textiles"
}
`,
		Right: `customer "acme" {
  metadata = { industry = "textiles" }
}
`,
	},
	{
		Code: "NSC0046", Summary: "Value too large",
		Text: "A text, a list or an object is larger than it may be. The limits keep a declaration from using up the machine's memory.",
		Wrong: `locals {
  numbers = range(2000000)
}
customer "acme" {
}
`,
		Right: `locals {
  numbers = range(2000)
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0047", Summary: "Empty list",
		Text: "A list of names is there to name something. Leave the attribute out instead.",
		Wrong: `customer "acme" {
  project "mill" {
    templates = []
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
  }
}
`,
	},
	{
		Code: "NSC0048", Summary: "Empty template",
		Text: "A template is a set of parameters and needs at least one.",
		Wrong: `template "meter" {
}
customer "acme" {
}
`,
		Right: `template "meter" {
  parameter "voltage" {
  }
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0049", Summary: "Contradictory bounds",
		Text: "No value is between min and max.",
		Wrong: `template "meter" {
  parameter "voltage" {
    min = 500
    max = 0
  }
}
customer "acme" {
}
`,
		Right: `template "meter" {
  parameter "voltage" {
    min = 0
    max = 500
  }
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0050", Summary: "Contradictory limits",
		Text: "Two limits of one block exclude each other: every value would exceed a threshold, a warning would come after what is critical, or a burst would take years to be there again.",
		Wrong: `platform "queue_depth" {
  warning  = 10000
  critical = 1000
}
`,
		Right: `platform "queue_depth" {
  warning  = 1000
  critical = 10000
}
`,
	},
	{
		Code: "NSC0051", Summary: "Contradictory retention",
		Text: "Telemetry would be dropped before it is compressed.",
		Wrong: `retention {
  raw            = "7d"
  compress_after = "30d"
}
`,
		Right: `retention {
  raw            = "90d"
  compress_after = "30d"
}
`,
	},
	{
		Code: "NSC0052", Summary: "Unknown customer",
		Text: "parent names a customer that is not declared.",
		Wrong: `customer "acme" {
  parent = "group"
}
`,
		Right: `customer "group" {
}
customer "acme" {
  parent = "group"
}
`,
	},
	{
		Code: "NSC0053", Summary: "Unknown template",
		Text: "No template block has this name.",
		Wrong: `customer "acme" {
  project "mill" {
    templates = ["meter"]
  }
}
`,
		Right: `template "meter" {
  parameter "voltage" {
  }
}
customer "acme" {
  project "mill" {
    templates = ["meter"]
  }
}
`,
	},
	{
		Code: "NSC0054", Summary: "Unknown parameter",
		Text: "The project has no parameter of this name, neither of its own nor from a template that it or one of its devices has. A device overrides only what it sends.",
		Wrong: `customer "acme" {
  project "mill" {
    site "north" {
      device "a" {
        type       = "meter"
        parameters = ["voltage"]
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    parameter "voltage" {
    }
    site "north" {
      device "a" {
        type       = "meter"
        parameters = ["voltage"]
      }
    }
  }
}
`,
	},
	{
		Code: "NSC0055", Summary: "Unknown local value",
		Text: "No locals block sets this name.",
		Wrong: `customer "acme" {
  metadata = { city = local.city }
}
`,
		Right: `locals {
  city = "Pune"
}
customer "acme" {
  metadata = { city = local.city }
}
`,
	},
	{
		Code: "NSC0056", Summary: "Unknown platform metric",
		Text: "Limits of the platform's own health exist for queue_depth, error_rate, latency_p95, disk_usage, memory_usage and database_size.",
		Wrong: `platform "queue_length" {
  warning = 1000
}
`,
		Right: `platform "queue_depth" {
  warning = 1000
}
`,
	},
	{
		Code: "NSC0057", Summary: "Unknown function",
		Text: "The language has few functions: concat, csvdecode, env, file, format, jsondecode, length, lower, merge, range, replace, tonumber, toset, tostring and upper.",
		Wrong: `customer "acme" {
  metadata = { city = title("pune") }
}
`,
		Right: `customer "acme" {
  metadata = { city = upper("pune") }
}
`,
	},
	{
		Code: "NSC0058", Summary: "Unknown attribute",
		Text: "The object has no such key. For rows of a CSV file the keys are the names in its first row.",
		Wrong: `locals {
  pune = { city = "Pune" }
}
customer "acme" {
  metadata = { city = local.pune.town }
}
`,
		Right: `locals {
  pune = { city = "Pune" }
}
customer "acme" {
  metadata = { city = local.pune.city }
}
`,
	},
	{
		Code: "NSC0059", Summary: "Cycle of customers",
		Text: "A customer can't be its own ancestor.",
		Wrong: `customer "a" {
  parent = "b"
}
customer "b" {
  parent = "a"
}
`,
		Right: `customer "a" {
}
customer "b" {
  parent = "a"
}
`,
	},
	{
		Code: "NSC0060", Summary: "Cycle of local values",
		Text: "A local value is defined by itself, directly or by way of others.",
		Wrong: `locals {
  a = local.b
  b = local.a
}
customer "acme" {
}
`,
		Right: `locals {
  a = local.b
  b = 1
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0061", Summary: "Invalid reference",
		Text: "An expression can refer to local.NAME and var.NAME, and inside a block with for_each to each.key and each.value. Anything else that is not in quotes is taken for a reference.",
		Wrong: `retention {
  raw = forever
}
`,
		Right: `retention {
  raw = "3650d"
}
`,
	},
	{
		Code: "NSC0062", Summary: "Invalid index",
		Text: "A list has items with whole numbers from 0, an object has keys, and other values have neither.",
		Wrong: `locals {
  cities = ["Pune"]
}
customer "acme" {
  metadata = { city = local.cities[1] }
}
`,
		Right: `locals {
  cities = ["Pune"]
}
customer "acme" {
  metadata = { city = local.cities[0] }
}
`,
	},
	{
		Code: "NSC0063", Summary: "Invalid key",
		Text: "The keys of an object are text.",
		Wrong: `customer "acme" {
  metadata = { ([1]) = "a" }
}
`,
		Right: `customer "acme" {
  metadata = { ("1") = "a" }
}
`,
	},
	{
		Code: "NSC0064", Summary: "Ambiguous key",
		Text: "A key with a dot may be text or a reference. Put it in quotes if it is text, in parentheses if it is a reference.",
		Wrong: `locals {
  key = "city"
}
customer "acme" {
  metadata = { local.key = "Pune" }
}
`,
		Right: `locals {
  key = "city"
}
customer "acme" {
  metadata = { (local.key) = "Pune" }
}
`,
	},
	{
		Code: "NSC0065", Summary: "Invalid template",
		Text: "Only text, numbers and true or false can be put into a text with ${…}.",
		Wrong: `locals {
  list = [1]
}
customer "acme" {
  metadata = { note = "is ${local.list}" }
}
`,
		Right: `locals {
  list = [1]
}
customer "acme" {
  metadata = { note = "is ${local.list[0]}" }
}
`,
	},
	{
		Code: "NSC0066", Summary: "Invalid range",
		Text: "The steps of a range must lead from its start to its end.",
		Wrong: `locals {
  a = range(1, 10, -1)
}
customer "acme" {
}
`,
		Right: `locals {
  a = range(1, 10, 2)
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0067", Summary: "Invalid format",
		Text: "Each % in the text of format takes one of the values behind it, and ends with one of s, d, f, g, e, x, X. A % itself is written %%.",
		Wrong: `locals {
  a = format("%d", 1, 2)
}
customer "acme" {
}
`,
		Right: `locals {
  a = format("%d-%d", 1, 2)
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0068", Summary: "Invalid argument",
		Text: "A function can't do anything with this argument.",
		Wrong: `locals {
  a = replace("abc", "", "x")
}
customer "acme" {
}
`,
		Right: `locals {
  a = replace("abc", "b", "x")
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0069", Summary: "Invalid CSV",
		Text: "The text is no CSV with a first row of unique names and as many cells in each row. A cell with a comma or a quote in it belongs in quotes.",
		Wrong: `locals {
  a = csvdecode("name,name\na,b\n")
}
customer "acme" {
}
`,
		Right: `locals {
  a = csvdecode("name,type\na,b\n")
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0070", Summary: "Invalid JSON",
		Text: "The text is no JSON, or has a number that can't be kept exactly.",
		Wrong: `locals {
  a = jsondecode("{a: 1}")
}
customer "acme" {
}
`,
		Right: `locals {
  a = jsondecode("{\"a\": 1}")
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0071", Summary: "File not readable",
		Text: "file(…) reads regular files of UTF-8 text, named by a path below the declaration's directory; links that lead outside are not followed.",
		Wrong: `locals {
  a = file("../meters.csv")
}
customer "acme" {
}
`,
		Right: `locals {
  a = file("meters.csv")
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0072", Summary: "Environment variable not set",
		Text: "env(…) has no default: a variable that is not set, or empty, is an error, so that nothing is applied with a gap in it.",
		Wrong: `customer "acme" {
  metadata = { site = env("STIE") }
}
`,
		Right: `customer "acme" {
  metadata = { site = env("SITE") }
}
`,
	},
	{
		Code: "NSC0073", Summary: "Number out of range",
		Text: "A number is larger than a float64 holds, or a calculation such as a division by zero has no number as its result.",
		Wrong: `locals {
  a = 1 / 0
}
customer "acme" {
}
`,
		Right: `locals {
  a = 1 / 2
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0074", Summary: "Number too precise",
		Text: "A whole number beyond 2^53 would be rounded. An identifier that is made of digits belongs in quotes.",
		Wrong: `customer "acme" {
  metadata = { meter = 12345678901234567891 }
}
`,
		Right: `customer "acme" {
  metadata = { meter = "12345678901234567891" }
}
`,
	},
	{
		Code: "NSC0075", Summary: "Wrong number of arguments",
		Text: "The function takes more or fewer arguments; the message says which.",
		Wrong: `locals {
  a = upper("a", "b")
}
customer "acme" {
}
`,
		Right: `locals {
  a = upper("a")
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0076", Summary: "Unsupported expression",
		Text: "HCL knows for expressions, splats and more, which this language leaves out: reading a declaration takes bounded time. Repeat a block with for_each, or prepare a list in a CSV or JSON file.",
		Wrong: `locals {
  a = [for n in [1, 2] : n * 2]
}
customer "acme" {
}
`,
		Right: `locals {
  a = [2, 4]
}
customer "acme" {
}
`,
	},
	{Code: "NSC0077", Summary: "Too much to evaluate", Text: "The expressions of the declaration take too much time or memory together. Prepare their values in a CSV or JSON file."},
	{
		Code: "NSC0078", Summary: "Invalid address",
		Text: "An address is the kind of a block and the names on the way to it, such as device.acme/mill/north/press-01; a / in a name is written %2F. It must fit its place: what can be moved or imported has a kind of its own each.",
		Wrong: `customer "acme" {
}
moved {
  from = "mills"
  to   = "customer.acme"
}
`,
		Right: `customer "acme" {
}
moved {
  from = "customer.mills"
  to   = "customer.acme"
}
`,
		also: []string{"Invalid id"},
	},
	{
		Code: "NSC0079", Summary: "Moved to what is not declared",
		Text: "A moved block says under which new address an object goes on, so the new address must be declared here, and not as a reference.",
		Wrong: `customer "acme" {
}
moved {
  from = "customer.mills"
  to   = "customer.acme mills"
}
`,
		Right: `customer "acme mills" {
}
moved {
  from = "customer.mills"
  to   = "customer.acme mills"
}
`,
	},
	{
		Code: "NSC0080", Summary: "Moved but declared",
		Text: "An object that has moved is not at its old address any more. Remove the block that declares it there, or the moved block.",
		Wrong: `customer "acme" {
}
customer "mills" {
}
moved {
  from = "customer.mills"
  to   = "customer.acme"
}
`,
		Right: `customer "acme" {
}
moved {
  from = "customer.mills"
  to   = "customer.acme"
}
`,
	},
	{
		Code: "NSC0081", Summary: "Moved to itself",
		Text: "The two addresses are the same. Remove the block.",
		Wrong: `customer "acme" {
}
moved {
  from = "customer.acme"
  to   = "customer.acme"
}
`,
		Right: `customer "acme" {
}
`,
	},
	{
		Code: "NSC0082", Summary: "Cycle of moves",
		Text: "Moves may follow one another, from an old address to a newer one; these lead back to where they began.",
		Wrong: `customer "acme" {
}
moved {
  from = "customer.a"
  to   = "customer.b"
}
moved {
  from = "customer.b"
  to   = "customer.a"
}
`,
		Right: `customer "acme" {
}
moved {
  from = "customer.a"
  to   = "customer.acme"
}
`,
	},
	{
		Code: "NSC0083", Summary: "Different kinds",
		Text: "A customer stays a customer: an object can move to an address of its own kind only.",
		Wrong: `customer "acme" {
  project "mill" {
  }
}
moved {
  from = "customer.mill"
  to   = "project.acme/mill"
}
`,
		Right: `customer "acme" {
  project "mill" {
  }
}
moved {
  from = "project.acme/works"
  to   = "project.acme/mill"
}
`,
	},
	{
		Code: "NSC0084", Summary: "Parameter moved to another project",
		Text: "The key of a parameter, with which devices send its values, holds its project. A parameter can be renamed in its project, and moves with it.",
		Wrong: `customer "acme" {
  project "mill" {
    parameter "voltage" {
    }
  }
}
moved {
  from = "parameter.acme/works/voltage"
  to   = "parameter.acme/mill/voltage"
}
`,
		Right: `customer "acme" {
  project "mill" {
    parameter "voltage" {
    }
  }
}
moved {
  from = "parameter.acme/mill/volts"
  to   = "parameter.acme/mill/voltage"
}
`,
	},
	{
		Code: "NSC0085", Summary: "Import of what is not declared",
		Text: "An import block says which existing object becomes the one that is declared at an address. Declare it there.",
		Wrong: `customer "acme" {
}
import {
  to = "customer.mills"
  id = "6f0c7c1e-53d1-4a7e-9a51-6e7372656164"
}
`,
		Right: `customer "mills" {
}
import {
  to = "customer.mills"
  id = "6f0c7c1e-53d1-4a7e-9a51-6e7372656164"
}
`,
	},
	{
		Code: "NSC0086", Summary: "Released but declared",
		Text: "A released block hands an object over to another declaration, so this one can't declare it any more.",
		Wrong: `customer "acme" {
}
released {
  from = "customer.acme"
}
`,
		Right: `customer "mills" {
}
released {
  from = "customer.acme"
}
`,
	},
	{
		Code: "NSC0087", Summary: "Attribute of a reference",
		Text: "reference = true says that another declaration has the object, and its attributes: here it is only named for what is declared inside it.",
		Wrong: `customer "acme" {
  reference = true
  parent    = "group"
  project "mill" {
  }
}
`,
		Right: `customer "acme" {
  reference = true
  project "mill" {
  }
}
`,
		also: []string{"Block in a reference"},
	},

	{
		Code: "NSC0088", Summary: "Missing source",
		Text: "A module block takes in the files of a directory, which its attribute source names.",
		Wrong: `customer "acme" {
  module "mill" {
    city = "Pune"
  }
}
`,
		Right: `customer "acme" {
  module "mill" {
    source = "./modules/mill"
    city   = "Pune"
  }
}
`,
	},
	{
		Code: "NSC0089", Summary: "Invalid source",
		Text: "The source of a module is a path relative to the file's directory. It is read before anything is evaluated, so it is written out, and begins with ./ or ../ so that it is not taken for something else.",
		Wrong: `customer "acme" {
  module "mill" {
    source = "modules/mill"
    city   = "Pune"
  }
}
`,
		Right: `customer "acme" {
  module "mill" {
    source = "./modules/mill"
    city   = "Pune"
  }
}
`,
	},
	{
		Code: "NSC0090", Summary: "Module not readable",
		Text: "The directory that source names does not exist, has no file whose name ends in .hcl, or is outside of the declaration's directory; or one of its files can't be read.",
		Wrong: `customer "acme" {
  module "mill" {
    source = "./modules/mil"
    city   = "Pune"
  }
}
`,
		Right: `customer "acme" {
  module "mill" {
    source = "./modules/mill"
    city   = "Pune"
  }
}
`,
	},
	{
		Code: "NSC0091", Summary: "Cycle of modules",
		Text: "Following the sources from a module leads back to it, so that it would never end. Move what both need into a third one.",
		Wrong: `module "loop" {
  source = "./modules/loop"
}
`,
		Right: `customer "acme" {
  module "mill" {
    source = "./modules/mill"
    city   = "Pune"
  }
}
`,
	},
	{Code: "NSC0092", Summary: "Too many modules", Text: "Modules may be nested 16 deep, and a declaration may have 1,000 of them and use them 10,000 times. Repeat the blocks inside a module with for_each rather than the module."},
	{
		Code: "NSC0093", Summary: "Unknown variable",
		Text: "Nothing declares the variable: no variable block of the declaration, or of the module that is given a value for it. The name may be misspelt.",
		Wrong: `variable "city" {
  default = "Pune"
}
customer "acme" {
  metadata = { city = var.town }
}
`,
		Right: `variable "city" {
  default = "Pune"
}
customer "acme" {
  metadata = { city = var.city }
}
`,
	},
	{
		Code: "NSC0094", Summary: "Duplicate variable",
		Text: "A variable is declared once in the declaration's files, and once in those of a module.",
		Wrong: `variable "city" {
  default = "Pune"
}
variable "city" {
  default = "Thane"
}
customer "acme" {
}
`,
		Right: `variable "city" {
  default = "Pune"
}
variable "town" {
  default = "Thane"
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0095", Summary: "Missing input",
		Text: "A variable without a default must be given a value: that of a module in the module block, that of the declaration with -var, -var-file, in a file *.auto.nsvars.hcl beside it or in the environment variable NSREADY_VAR_NAME.",
		Wrong: `customer "acme" {
  module "mill" {
    source = "./modules/mill"
  }
}
`,
		Right: `customer "acme" {
  module "mill" {
    source = "./modules/mill"
    city   = "Pune"
  }
}
`,
	},
	{
		Code: "NSC0096", Summary: "Invalid input",
		Text: "The value of a variable does not meet the condition of a validation block, or it was given from outside and refers to something: there it must be written out, text in quotes.",
		Wrong: `variable "floors" {
  default = 0
  validation {
    condition     = var.floors > 0
    error_message = "A mill has a floor."
  }
}
customer "acme" {
}
`,
		Right: `variable "floors" {
  default = 2
  validation {
    condition     = var.floors > 0
    error_message = "A mill has a floor."
  }
}
customer "acme" {
}
`,
	},
	{
		Code: "NSC0097", Summary: "Invalid default",
		Text: "The default of a variable stands by itself. What depends on something else is a local value.",
		Wrong: `locals {
  city = "Pune"
}
variable "site" {
  default = "${local.city} north"
}
customer "acme" {
}
`,
		Right: `variable "city" {
  default = "Pune"
}
locals {
  site = "${var.city} north"
}
customer "acme" {
}
`,
	},
	{Code: "NSC0098", Summary: "Variables not readable", Text: "A file with values for variables does not exist, is not a regular file, or may not be read."},
	{Code: "NSC0099", Summary: "Declaration too large", Text: "The *.hcl files of a declaration and its modules may have 1 GiB together. Keep the devices in a CSV file for for_each."},
	{
		Code: "NSC0100", Summary: "Empty override",
		Text: "An override says what holds for one device instead of what the template of a parameter says. A block that sets nothing looks as if it did: remove it.",
		Wrong: `customer "acme" {
  project "mill" {
    parameter "voltage" {
      max = 480
    }
    site "north" {
      device "press-01" {
        type       = "meter"
        parameters = ["voltage"]

        override "voltage" {
        }
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    parameter "voltage" {
      max = 480
    }
    site "north" {
      device "press-01" {
        type       = "meter"
        parameters = ["voltage"]

        override "voltage" {
          max = 520
        }
      }
    }
  }
}
`,
	},
	{
		Code: "NSC0101", Summary: "Unknown gateway",
		Text: "The gateway of a device is a device that is declared, too: by its name in the same site, or with the names of its site, project and customer in front of it, as far as they are others.",
		Wrong: `customer "acme" {
  project "mill" {
    site "north" {
      device "router" {
        type = "meter"
      }
      device "press-01" {
        type    = "meter"
        gateway = "ruoter"
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    site "north" {
      device "router" {
        type = "meter"
      }
      device "press-01" {
        type    = "meter"
        gateway = "router"
      }
    }
  }
}
`,
	},
	{
		Code: "NSC0102", Summary: "Cycle of gateways",
		Text: "A device is reached through its gateway, and that perhaps through another one, up to a device that is reached directly. This chain leads back to where it began.",
		Wrong: `customer "acme" {
  project "mill" {
    site "north" {
      device "router" {
        type    = "meter"
        gateway = "press-01"
      }
      device "press-01" {
        type    = "meter"
        gateway = "router"
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    site "north" {
      device "router" {
        type = "meter"
      }
      device "press-01" {
        type    = "meter"
        gateway = "router"
      }
    }
  }
}
`,
	},
	{
		Code: "NSC0103", Summary: "Invalid gateway",
		Text: "A gateway is another device of the same customer. Its names have slashes between them; a slash in a name is written %2F, as in an address.",
		Wrong: `customer "acme" {
  project "mill" {
    site "north" {
      device "router" {
        type    = "meter"
        gateway = "router"
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    site "north" {
      device "router" {
        type = "meter"
      }
    }
  }
}
`,
	},
	{
		Code: "NSL0001", Summary: "Threshold without deadband",
		Text: "A value that wavers around the limit makes the alert come and go with every sample. deadband says how far it must come back before the alert clears; a little more than the noise of the sensor is enough.",
		Wrong: lintExample(`unit = "V"
threshold "high" {
  above = 253
}`),
		Right: lintExample(`unit = "V"
threshold "high" {
  above    = 253
  deadband = 2
}`),
	},
	{
		Code: "NSL0002", Summary: "Threshold outside the range of its parameter",
		Text: "A limit at or beyond min or max is exceeded only by values outside of them. With on_violation = \"reject\" those are refused, so that the alert can never fire; otherwise they are flagged as not to be trusted. Move the limit inside, or widen the range to all that the sensor can show.",
		Wrong: lintExample(`unit = "V"
max  = 240
threshold "high" {
  above    = 253
  deadband = 2
}`),
		Right: lintExample(`unit = "V"
max  = 500
threshold "high" {
  above    = 253
  deadband = 2
}`),
	},
	{
		Code: "NSL0003", Summary: "Threshold always exceeded",
		Text: "Every value between min and max exceeds the limit: the alert would never clear. Probably above and below are mixed up.",
		Wrong: lintExample(`unit = "V"
min  = 0
max  = 500
threshold "low" {
  above    = -10
  deadband = 2
}`),
		Right: lintExample(`unit = "V"
min  = 0
max  = 500
threshold "low" {
  below    = 10
  deadband = 2
}`),
	},
	{
		Code: "NSL0004", Summary: "Warning beyond critical",
		Text: "A warning should come before what it warns of. Here the critical threshold of the same parameter is exceeded first.",
		Wrong: lintExample(`unit = "V"
threshold "high" {
  above    = 260
  deadband = 2
}
threshold "trip" {
  above    = 253
  deadband = 2
  severity = "critical"
}`),
		Right: lintExample(`unit = "V"
threshold "high" {
  above    = 253
  deadband = 2
}
threshold "trip" {
  above    = 260
  deadband = 2
  severity = "critical"
}`),
	},
	{
		Code: "NSL0005", Summary: "Retention shorter than a threshold",
		Text: "Telemetry is dropped before a threshold's for has passed: when the alert fires, the values that led to it are gone.",
		Wrong: `retention {
  raw = "1d"
}
` + lintExample(`unit = "V"
threshold "high" {
  above    = 253
  for      = "2d"
  deadband = 2
}`),
		Right: `retention {
  raw = "90d"
}
` + lintExample(`unit = "V"
threshold "high" {
  above    = 253
  for      = "2d"
  deadband = 2
}`),
	},
	{
		Code: "NSL0006", Summary: "Device without parameters",
		Text: "Neither template nor parameters says what the device sends, so that nobody can tell what is missing. It may send any parameter of its project.",
		Wrong: `customer "acme" {
  project "mill" {
    site "north" {
      device "press-01" {
        type     = "meter"
        interval = "10s"
      }
    }
  }
}
`,
		Right: lintExample("unit = \"V\""),
	},
	{
		Code: "NSL0007", Summary: "Device without interval",
		Text: "Neither the device nor one of its parameters says how often it sends, so that nobody can tell when it is silent. Set interval in the device or in its parameters.",
		Wrong: `customer "acme" {
  project "mill" {
    parameter "voltage" {
      unit = "V"
    }
    site "north" {
      device "press-01" {
        type       = "meter"
        parameters = ["voltage"]
      }
    }
  }
}
`,
		Right: lintExample("unit = \"V\""),
	},
	{
		Code: "NSL0008", Summary: "Parameter that no device sends",
		Text: "The project has devices, and none of them is declared to send this parameter. It may be left from an earlier version, or missing from a device's list.",
		Wrong: `customer "acme" {
  project "mill" {
    parameter "voltage" {
      unit = "V"
    }
    parameter "current" {
      unit = "A"
    }
    site "north" {
      device "press-01" {
        type       = "meter"
        interval   = "10s"
        parameters = ["voltage"]
      }
    }
  }
}
`,
		Right: lintExample("unit = \"V\""),
	},
	{
		Code: "NSL0009", Summary: "Parameter without unit",
		Text:  "A measured number means nothing without its unit. For a quantity that has none, such as a ratio, write unit = \"\", which says that it was thought of.",
		Wrong: lintExample("min = 0"),
		Right: lintExample("unit = \"V\""),
	},
	{
		Code: "NSL0010", Summary: "Names that differ by case only",
		Text: "Names are compared exactly, so these are two objects. People, and programs that ignore case, will take them for one.",
		Wrong: `customer "acme" {
}
customer "ACME" {
}
`,
		Right: `customer "acme" {
}
customer "acme south" {
}
`,
	},
	{
		Code: "NSL0011", Summary: "Text with surrounding blanks",
		Text:  "Blanks at the beginning or end of a unit or description can't be seen, and what compares or groups by it tells two apart that look the same.",
		Wrong: lintExample("unit = \"V \""),
		Right: lintExample("unit = \"V\""),
	},
	{
		Code: "NSL0012", Summary: "Unused template",
		Text: "No project or device has the template. Remove it, or use it.",
		Wrong: `template "meter" {
  parameter "voltage" {
    unit = "V"
  }
}
customer "acme" {
}
`,
		Right: `template "meter" {
  parameter "voltage" {
    unit = "V"
  }
}
customer "acme" {
  project "mill" {
    templates = ["meter"]
  }
}
`,
	},
	{
		Code: "NSL0013", Summary: "Unused local value",
		Text: "No expression refers to the local value. Remove it; a misspelt reference would be an error of its own.",
		Wrong: `locals {
  city = "Pune"
}
customer "acme" {
}
`,
		Right: `locals {
  city = "Pune"
}
customer "acme" {
  metadata = { city = local.city }
}
`,
	},
	{
		Code: "NSL0014", Summary: "Range without effect",
		Text: "on_violation = \"accept\" stores every value as it came: min, max and type are not looked at. Use \"flag\" to store values outside of them with a lower quality, or leave them out.",
		Wrong: lintExample(`unit         = "V"
max          = 500
on_violation = "accept"`),
		Right: lintExample(`unit         = "V"
max          = 500
on_violation = "flag"`),
	},
	{
		Code: "NSL0015", Summary: "Interval shorter than the limits allow",
		Text: "The device, or all devices of the customer together, would send more events a second than the limits let through in the long run; the rest is refused with rate_limited_device or rate_limited_customer. Raise events_per_second, or lengthen the interval.",
		Wrong: `limits {
  device {
    events_per_second = 0.01
    burst             = 10
  }
}
` + lintExample("unit = \"V\""),
		Right: `limits {
  device {
    events_per_second = 1
    burst             = 10
  }
}
` + lintExample("unit = \"V\""),
	},
	{
		Code: "NSL0016", Summary: "Secret in the declaration",
		Text: "The declaration is kept in version control, and the registry shows its metadata to everybody who may read it: no place for a password, token or key. Keep it where secrets are kept and write only its name here.",
		Wrong: `customer "acme" {
  metadata = { api_token = "c2VjcmV0" }
}
`,
		Right: `customer "acme" {
  metadata = { api_token_name = "vault:acme/api" }
}
`,
	},
	{
		Code: "NSL0017", Summary: "Secret in a file that everyone can read",
		Text: "The file holds what looks like a secret, and its permissions let every user of this machine read it. Take the secret out, or at least run chmod o-r on the file.",
	},
	{
		Code: "NSL0018", Summary: "Invalid nolint comment",
		Text: "A comment that silences a finding names its code and the reason, so that whoever reads it can judge whether it still holds.",
		Wrong: `locals {
  city = "Pune" # nolint:NSL0013
}
customer "acme" {
}
`,
		Right: `locals {
  city = "Pune" # nolint:NSL0013 the next release uses it
}
customer "acme" {
}
`,
	},
	{
		Code: "NSL0019", Summary: "Unused nolint comment",
		Text: "The comment silences nothing: neither on its own line, nor, where it stands alone, on the line below is a finding with this code. What it was for is gone; remove it.",
		Wrong: `customer "acme" { # nolint:NSL0013 is used elsewhere
}
`,
		Right: `customer "acme" {
}
`,
	},
	{
		Code: "NSL0020", Summary: "Threshold that ignores values without quality",
		Text: "Values that come without a quality get the parameter's default_quality. It is below 64, which means bad, and values of bad quality raise no alert: the threshold works only for devices that send a quality with each value. Set default_quality = 192, good, when the values can be trusted as they come.",
		Wrong: `customer "acme" {
  project "mill" {
    parameter "voltage" {
      unit = "V"
      threshold "high" {
        above    = 253
        deadband = 2
      }
    }
  }
}
`,
		Right: `customer "acme" {
  project "mill" {
    parameter "voltage" {
      unit            = "V"
      default_quality = 192
      threshold "high" {
        above    = 253
        deadband = 2
      }
    }
  }
}
`,
	},

	{
		Code: "NSL0021", Summary: "Stale before the next value is due",
		Text:  "stale_after is not longer than the interval in which values come, so that the series is stale again and again although nothing is wrong. Let it be several intervals, or leave it out: without it a series is stale after three.",
		Wrong: lintExample("unit        = \"V\"\ninterval    = \"1m\"\nstale_after = \"1m\""),
		Right: lintExample("unit        = \"V\"\ninterval    = \"1m\"\nstale_after = \"5m\""),
	},
	{
		Code: "NST0001", Summary: "Unknown device",
		Text: "A test names a device by its address, such as acme/mill/north/press-01, or by its external id. The declaration has none like that.",
		Wrong: `test "a" {
  series {
    device    = "acme/mill/north/press-02"
    parameter = "voltage"
    interval  = "1s"
    values    = "1"
  }
  expect_no_alerts = true
}
`,
		Right: `test "a" {
  series {
    device    = "acme/mill/north/press-01"
    parameter = "voltage"
    interval  = "1s"
    values    = "1"
  }
  expect_no_alerts = true
}
`,
	},
	{
		Code: "NST0002", Summary: "Invalid series",
		Text: "Values are separated by spaces: 230 is a value, _ none, NaN a null; 230x3 is 230 and then three times again, 230+2x3 is 230 232 234 236, 230-2x3 goes down, and _x3 is three times none. A test may have up to 5,000,000 of them.",
		Wrong: `test "a" {
  series {
    device    = "acme/mill/north/press-01"
    parameter = "voltage"
    interval  = "1s"
    values    = "230 x3"
  }
  expect_no_alerts = true
}
`,
		Right: `test "a" {
  series {
    device    = "acme/mill/north/press-01"
    parameter = "voltage"
    interval  = "1s"
    values    = "230x3"
  }
  expect_no_alerts = true
}
`,
	},
	{
		Code: "NST0003", Summary: "Unknown threshold",
		Text: "The project of the device has no threshold of this name; or it has several, of different parameters: then say which with parameter.",
		Wrong: `test "a" {
  series {
    device    = "acme/mill/north/press-01"
    parameter = "voltage"
    interval  = "1s"
    values    = "1"
  }
  expect_alert {
    device    = "acme/mill/north/press-01"
    threshold = "hihg"
    at        = "1s"
    state     = "none"
  }
}
`,
		Right: `test "a" {
  series {
    device    = "acme/mill/north/press-01"
    parameter = "voltage"
    interval  = "1s"
    values    = "1"
  }
  expect_alert {
    device    = "acme/mill/north/press-01"
    threshold = "high"
    at        = "1s"
    state     = "none"
  }
}
`,
	},
	{
		Code: "NST0004", Summary: "Nothing expected",
		Text: "A test must be able to fail: it needs at least one expectation. An event expects to be accepted, or what its expect_error says; a series alone only feeds the alerts.",
		Wrong: `test "a" {
}
`,
		Right: `test "a" {
  expect {
    devices = 1
  }
}
`,
	},
	{
		Code: "NST0005", Summary: "Contradictory event",
		Text: "An event is given as json, or by device and values; it is expected to be accepted, or refused as expect_error says. Nor can other expectations of a test exclude each other.",
		also: []string{"Contradictory expectation"},
		Wrong: `test "a" {
  event {
    json   = "{}"
    device = "acme/mill/north/press-01"
  }
}
`,
		Right: `test "a" {
  event {
    device = "acme/mill/north/press-01"
    values = { voltage = 1 }
  }
}
`,
	},
	{
		Code: "NST0006", Summary: "Invalid time",
		Text: "A time is text: a duration since the start of the test, such as \"40s\", or a time of day such as \"2026-01-01T00:00:40Z\". A test spans ten years at most.",
		Wrong: `test "a" {
  start = "yesterday"
  expect {
    devices = 1
  }
}
`,
		Right: `test "a" {
  start = "2026-01-01T00:00:00Z"
  expect {
    devices = 1
  }
}
`,
	},
	{Code: "NST0007", Summary: "Test file not readable", Text: "The file or directory does not exist, is not a regular file, or may not be read."},
	{
		Code: "NST0008", Summary: "No test",
		Text: "A test file has at least one test block. A file without one would always pass.",
		Wrong: `locals {
  a = 1
}
`,
		Right: `test "a" {
  expect {
    devices = 1
  }
}
`,
	},
}

// lintExample is a declaration with one device and one parameter, which has these attributes and blocks.
func lintExample(parameter string) string {
	return `customer "acme" {
  project "mill" {
    parameter "voltage" {
      ` + strings.ReplaceAll(parameter, "\n", "\n      ") + `

      default_quality = 192
    }
    site "north" {
      device "press-01" {
        type       = "meter"
        interval   = "10s"
        parameters = ["voltage"]
      }
    }
  }
}
`
}
