package sheet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/registry/registrytest"
)

var empty = registry.NewSnapshot(nil)

type reader func(io.Reader, *registry.Snapshot, []string, func(Row) error) ([]registry.Object, error)

// read returns what a file creates, and its report as "line outcome [column field reason]…".
func read(t testing.TB, read reader, text string, current *registry.Snapshot, customers ...string) (objects []registry.Object, report []string, err error) {
	t.Helper()
	objects, err = read(strings.NewReader(text), current, customers, func(r Row) error {
		line := fmt.Sprintf("%d %s", r.Line, r.Outcome)
		for _, p := range r.Problems {
			line += fmt.Sprintf(" [%d:%d %s %s]", p.Line, p.Column, p.Field, p.Reason)
		}
		report = append(report, line)
		return nil
	})
	return objects, report, err
}

// What is written is read by an empty registry, and then written as the same bytes.
func TestFilesAreReadAsTheyWereWritten(t *testing.T) {
	rows := 0
	for seed := range uint64(300) {
		estate := registry.Declare(registrytest.Estate(rand.New(rand.NewPCG(seed, 5))))
		var first, second bytes.Buffer
		if _, err := WriteRegistry(&first, estate); err != nil {
			t.Fatal(err)
		}
		objects, report, err := read(t, ReadRegistry, first.String(), empty)
		if i := slices.IndexFunc(report, func(s string) bool { return !strings.HasSuffix(s, " created") }); err != nil || i >= 0 {
			t.Fatalf("seed %d: %v %q of\n%s", seed, err, report, first.String())
		}
		if _, err := WriteRegistry(&second, registry.Declare(objects)); err != nil || first.String() != second.String() {
			t.Fatalf("seed %d: %v\n%s\nbecame\n%s", seed, err, first.String(), second.String())
		}
		_, report, err = read(t, ReadRegistry, first.String(), estate)
		if i := slices.IndexFunc(report, func(s string) bool { return !strings.HasSuffix(s, " exists") }); err != nil || i >= 0 {
			t.Fatalf("seed %d: in the registry that it came from: %v %q", seed, err, report)
		}
		rows += len(report)
	}
	if rows < 1000 {
		t.Errorf("only %d rows were tried", rows)
	}
}

func TestParametersAreReadAsTheyWereWritten(t *testing.T) {
	rows := 0
	for seed := range uint64(300) {
		var all, projects []registry.Object
		for _, o := range registrytest.Estate(rand.New(rand.NewPCG(seed, 6))) {
			switch o := o.(type) {
			case *registry.Customer, *registry.Project:
				projects = append(projects, o)
			case *registry.Parameter:
				if registry.ShortName(o.Name) != o.Addr.Name() { // a file knows the name alone
					continue
				}
				all = append(all, o)
			}
		}
		var first, second bytes.Buffer
		if omitted, err := WriteParameters(&first, registry.Declare(append(all, projects...))); err != nil || len(omitted) > 0 {
			t.Fatal(omitted, err)
		}
		objects, report, err := read(t, ReadParameters, first.String(), registry.Declare(projects))
		if i := slices.IndexFunc(report, func(s string) bool { return !strings.HasSuffix(s, " created") }); err != nil || i >= 0 {
			t.Fatalf("seed %d: %v %q of\n%s", seed, err, report, first.String())
		}
		if _, err := WriteParameters(&second, registry.Declare(append(objects, projects...))); err != nil || first.String() != second.String() {
			t.Fatalf("seed %d: %v\n%s\nbecame\n%s", seed, err, first.String(), second.String())
		}
		rows += len(report)
	}
	if rows < 300 {
		t.Errorf("only %d rows were tried", rows)
	}
}

const header = "customer_name,project_name,project_description,site_name,site_location,device_name,device_type,device_code,device_status\n"

// The faults of the original's importer, and of what people save.
func TestReadRegistry(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"JSON without quotes":                      {header + `A,p,,s,{"city":"Pune","tags":["a,b","}"]},d,,,` + "\n", []string{"2 created"}},
		"JSON without quotes end":                  {"customer_name,project_name,site_name,site_location\n" + `A,p,s,{"a":{}}`, []string{"2 created"}},
		"JSON that is cut":                         {header + `A,p,,s,{"city":"Pune",d,,,` + "\n" + `A,p,,s,,d,,,`, []string{`2 error [2:8 site_location JSON with commas or quotes must be quoted, with each quote in it twice: "{""city"": ""Pune""}"]`, "3 created"}},
		"blank lines":                              {"\ufeff" + header + "A,p,,s,,,,,\r\n\r\n,,,,,,,,\r\nA,p,,t,,,,,\r\n\n\n", []string{"2 created", "5 created"}},
		"no line at the end":                       {header + "A,p,,s,,d,,,", []string{"2 created"}},
		"a row without code after one with a code": {header + "A,p,,s,,d1,,C1,\nA,p,,s,,d2,,,\n", []string{"2 created", "3 created"}},
		"quotes":                   {header + "\"A, \"\"B\"\"\nC\",p,,s,,,,,\nD,p,,s,,,,,\n", []string{`2 error [2:1 customer_name the name "A, \"B\"\nC" contains the invisible character U+000A]`, "4 created"}},
		"text behind a quote":      {header + "\"A\"B,p,,s,,,,,\nD,p,,s,,,,,\n", []string{`2 error [2:1 customer_name the quoted text that begins here ends before column 4 of line 2, and more follows: write a quote inside it twice, as ""]`, "3 created"}},
		"a quote in a text":        {header + "5\" pipe,p,,s,,,,,\n", []string{`2 error [2:1 customer_name there is a quote inside a text that is not quoted: put the text in quotes, and write the quote twice, as ""]`}},
		"a quote left open":        {header + "A,p,,\"s,,,,,\nD,p,,s,,,,,\n", []string{`2 error [2:6 site_name the quote that opens here is never closed]`}},
		"too many fields":          {header + "A,p,,s,,d,,,,,\n", []string{"2 error [2:14  the row has 11 fields, and the header has 9: a text with a comma in it must be in quotes]"}},
		"10,000 fields":            {header + strings.Repeat("x,", 10_000) + "\nA,p,,s,,,,,\n", []string{"2 error [2:129  the row has more than 64 fields]", "3 created"}},
		"NUL":                      {header + "A\x00,p,,s,,,,,\n", []string{"2 error [2:1 customer_name it holds a NUL; is this a text file?]"}},
		"Latin-1":                  {header + "A,p,,s\xfcd,,,,,\n", []string{`2 error [2:6 site_name it is no UTF-8; save the file as "CSV UTF-8"]`}},
		"formula":                  {header + "A,p,@SUM(1),s,,+cmd,,,\n", []string{`2 error [2:5 project_description "@SUM(1)" is a formula to a spreadsheet; remove what it begins with] [2:16 device_name "+cmd" is a formula to a spreadsheet; remove what it begins with]`}},
		"a sign is no formula":     {header + "A,p,,-40 store,,+5 V rail,,,\n", []string{"2 created"}},
		"columns count characters": {header + "Zoë €,p,\u202e,s,,,,,\n", []string{`2 error [2:9 project_description it contains the control character U+202E]`}},
		"location is a list":       {header + "A,p,,s,[1],,,,\n", []string{`2 error [2:8 site_location "[1]" is no JSON object; write an object, such as "{""city"": ""Pune""}"]`}},
		"location is too exact":    {header + `A,p,,s,"{""id"":12345678901234567890}",,,,` + "\n", []string{`2 error [2:8 site_location "{\"id\":12345678901234567890}" has the number "12345678901234567890", which can't be kept exactly: put it in quotes; write an object, such as "{""city"": ""Pune""}"]`}},
		"device without name":      {header + "A,p,,s,,,meter,,\n", []string{"2 error [2:9 device_name it is missing]"}},
		"twice the same":           {header + "A,p,,s,,d,,C,\nA,p,,s,,d,,C,\n", []string{"2 created", "3 exists"}},
		"contradictions":           {header + "A,p,x,s,,d,,C,\nA,p,y,s,,d,meter,C,\n", []string{"2 created", `3 error [3:5 project_description is "y", and on line 2 of this file it is "x"] [3:12 device_type is "meter", and on line 2 of this file it is "sensor"]`}},
		"a bad row adds nothing":   {header + "A,p,,s,,d,,C,\xff\nA,p,,s,,e,,C,\n", []string{`2 error [2:14 device_status it is no UTF-8; save the file as "CSV UTF-8"]`, "3 created"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, got, err := read(t, ReadRegistry, test.text, empty)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%v\ngot  %q\nwant %q", err, got, test.want)
			}
		})
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":            {"", "line 1: the file is empty"},
		"blank":            {"\n\n,,,\n", "the file is empty"},
		"UTF-16":           {"\xff\xfec\x00u\x00", `the file is UTF-16; save it as "CSV UTF-8"`},
		"workbook":         {"PK\x03\x04\x14\x00", "the file is a workbook"},
		"binary":           {"\x7fELF\x00\x01\n", "the header holds a NUL"},
		"unknown column":   {"customer_name,project_name,site_name,colour\n", `there is no column "colour" (column 38)`},
		"column twice":     {"customer_name,customer_name\n", `the column "customer_name" is there twice`},
		"missing column":   {"customer_name,project_name\n", "the column site_name is missing"},
		"no header":        {"A,p,,s,,d,,,\n", `there is no column "A"`},
		"10,000 columns":   {strings.Repeat("x,", 10_000) + "\n", "the row has more than 64 fields"},
		"semicolons":       {"customer_name;project_name\n", "separated by semicolons or tabs"},
		"unknown customer": {header, `there is no customer "Nobody"`},
	} {
		t.Run(name, func(t *testing.T) {
			var only []string
			if name == "unknown customer" {
				only = []string{"Nobody"}
			}
			objects, report, err := read(t, ReadRegistry, test.text, empty, only...)
			if err == nil || !strings.Contains(err.Error(), test.want) || len(objects)+len(report) > 0 {
				t.Errorf("%v, want %s; %v %v", err, test.want, objects, report)
			}
		})
	}
}

// endless is a file that has no end: a row of one field, in quotes or not.
type endless struct{ begin string }

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.begin)
	e.begin = e.begin[n:]
	for i := n; i < len(b); i++ {
		b[i] = 'x'
	}
	return len(b), nil
}

// A line without end is refused with little of it in memory.
func TestEndlessLines(t *testing.T) {
	for _, begin := range []string{"", header, header + "A,p,,\"", header + `A,p,,s,{"`, header + "\"A\"B,"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ReadRegistry(&endless{begin}, empty, nil, func(Row) error { return nil })
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "has more than 1048576 bytes") {
			t.Errorf("%q: %v", begin, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%q: %d bytes were allocated", begin, n)
		}
	}
}

func TestReadStops(t *testing.T) {
	stop := errors.New("stop")
	if _, err := ReadRegistry(strings.NewReader(header+"A,p,,s,,,,,\n"), empty, nil, func(Row) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// What is retired returns as it was, but for what the row says.
func TestRetiredObjectsReturn(t *testing.T) {
	c := &registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "A"), Metadata: `{"a":1}`}
	p := &registry.Project{Addr: c.Addr.Child(registry.KindProject, "p"), Description: "was"}
	s := &registry.Site{Addr: p.Addr.Child(registry.KindSite, "s"), Location: `{"b":2}`}
	d := &registry.Device{Addr: s.Addr.Child(registry.KindDevice, "d"), Type: "meter", State: "inactive", Parameters: []string{"x"}}
	current := registry.Declare([]registry.Object{c, p, s, d})
	d.Ref = 7
	for _, status := range []*registry.Status{&c.Status, &p.Status, &s.Status, &d.Status} {
		*status = registry.Status{Managed: true, Retired: true}
	}
	objects, report, err := read(t, ReadRegistry, header+"A,p,,s,,d,sensor,C,\n", current)
	if err != nil || !slices.Equal(report, []string{"2 created"}) {
		t.Fatal(report, err)
	}
	plan := registry.Add(current, registry.NewSnapshot(objects))
	if len(plan.Changes) != 4 {
		t.Fatalf("%d changes", len(plan.Changes))
	}
	wantC, wantP, wantS, wantD := *c, *p, *s, *d
	wantC.Status, wantP.Status, wantS.Status, wantD.Status = registry.Status{}, registry.Status{}, registry.Status{}, registry.Status{}
	wantD.Type, wantD.ExternalID = "sensor", "C"
	for i, want := range []registry.Object{&wantC, &wantP, &wantS, &wantD} {
		if got := plan.Changes[i]; !reflect.DeepEqual(got.After, want) || got.Before == nil || got.Reason == "" {
			t.Errorf("%+v\nwant %+v", got.After, want)
		}
	}
}

// Whatever a file is: each row has an outcome, what is created can be declared, and is there when the file is read again.
func FuzzRead(f *testing.F) {
	f.Add(header + "A,p,\"a \"\"b\"\"\",s,{\"city\":\"Pune\"},d,meter,C-1,active\nA,p,,s,,e,,,\n")
	f.Add("\ufeffsite_name,customer_name,project_name,device_name\r\n s,\"A\",-1,=x\r\n")
	f.Add("customer_name,project_name,parameter_name,min_value\nA,p,Tank Level (%),-40\n")
	f.Fuzz(func(t *testing.T, text string) {
		project := registry.NewAddress(registry.KindProject, "A", "p")
		current := registry.Declare([]registry.Object{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "A")}, &registry.Project{Addr: project}})
		for _, f := range []reader{ReadRegistry, ReadParameters} {
			objects, report, err := read(t, f, text, current)
			if err != nil {
				continue
			}
			plan := registry.Add(current, registry.NewSnapshot(objects))
			var all []registry.Object
			for o := range current.Objects {
				all = append(all, o)
			}
			for _, c := range plan.Changes {
				all = append(all, c.After)
			}
			if len(plan.Changes) != len(objects) {
				t.Fatalf("%d objects, %d changes", len(objects), len(plan.Changes))
			}
			then := registry.NewSnapshot(all)
			if unsaid, err := config.Write(io.Discard, then); err != nil || len(unsaid) > 0 {
				t.Fatalf("%v cannot be declared: %v", unsaid, err)
			}
			objects, again, err := read(t, f, text, then)
			if err != nil || len(objects) > 0 || len(again) != len(report) {
				t.Fatalf("%v, the second time %v are new: %q", err, objects, again)
			}
			for i := range again {
				if strings.Contains(again[i], "created") || strings.Contains(report[i], "created") && strings.Contains(again[i], "error") {
					t.Fatalf("%q, then %q", report[i], again[i])
				}
			}
		}
	})
}
