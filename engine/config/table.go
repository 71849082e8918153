package config

import "slices"

// row is an object whose attributes are the texts of one row of a table. A list of a million objects would take half a
// gigabyte as maps.
type row struct {
	*table
	first int // its first cell
}

// table is what csvdecode makes: rows one after the other, a cell for each column.
type table struct {
	columns []string
	cells   []string
}

func (r row) get(column string) (cell string, ok bool) {
	i := slices.Index(r.columns, column)
	if i < 0 {
		return "", false
	}
	return r.cells[r.first+i], true
}

// object returns the attributes of a value that is an object.
func object(v any) (attributes map[string]any, ok bool) {
	switch v := v.(type) {
	case map[string]any:
		return v, true
	case row:
		attributes = make(map[string]any, len(v.columns))
		for i, name := range v.columns {
			attributes[name] = v.cells[v.first+i]
		}
		return attributes, true
	}
	return nil, false
}
