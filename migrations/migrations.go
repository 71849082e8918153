// Package migrations holds the schema of the database, as numbered files that are run once each, in order.
package migrations

import "embed"

// Files are NNNN_name.sql.
//
//go:embed *.sql
var Files embed.FS
