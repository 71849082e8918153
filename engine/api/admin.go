package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/julienschmidt/httprouter"
)

// Inventory reads the registry in the shapes of the admin API.
type Inventory interface {
	// List returns a JSON array of a resource's items, newest first; of one customer when customer is not zero.
	List(ctx context.Context, resource string, customer uuid.UUID) ([]byte, error)
	// Item returns one item as JSON, or nil when there is none with this id that the customer may see.
	Item(ctx context.Context, resource string, id, customer uuid.UUID) ([]byte, error)
}

// Admin serves engineers: reads of the registry, for holders of the token.
type Admin struct {
	Token     string
	Inventory Inventory
	Log       *slog.Logger
}

// resources of the admin API: path, name of the id in messages, name of one item in messages.
var resources = []struct{ path, id, noun string }{
	{"customers", "customer_id", "Customer"},
	{"projects", "project_id", "Project"},
	{"sites", "site_id", "Site"},
	{"devices", "device_id", "Device"},
	{"parameter_templates", "template_id", "Parameter template"},
}

// Handler returns the admin API's routes.
func (a *Admin) Handler() http.Handler {
	r := newRouter(a.Log)
	ok := func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		writeJSON(w, http.StatusOK, struct {
			Service string `json:"service"`
		}{"ok"})
	}
	r.GET("/health", ok)
	r.GET("/healthz", ok)
	for _, res := range resources {
		r.GET("/admin/"+res.path, a.authorized(func(w http.ResponseWriter, req *http.Request, customer uuid.UUID, _ httprouter.Params) error {
			out, err := a.Inventory.List(req.Context(), res.path, customer)
			if err != nil {
				return err
			}
			writeBytes(w, out)
			return nil
		}))
		r.GET("/admin/"+res.path+"/:id", a.authorized(func(w http.ResponseWriter, req *http.Request, customer uuid.UUID, p httprouter.Params) error {
			id, err := uuid.Parse(p.ByName("id"))
			if err != nil {
				writeJSON(w, http.StatusBadRequest, detail{fmt.Sprintf("Invalid UUID format for %s: %.64q", res.id, p.ByName("id"))})
				return nil
			}
			out, err := a.Inventory.Item(req.Context(), res.path, id, customer)
			if err != nil {
				return err
			}
			if out == nil {
				writeJSON(w, http.StatusNotFound, detail{res.noun + " not found"})
				return nil
			}
			writeBytes(w, out)
			return nil
		}))
	}
	return secure(r)
}

// authorized lets holders of the token in. The header X-Customer-ID narrows what they see to one customer.
func (a *Admin) authorized(next func(http.ResponseWriter, *http.Request, uuid.UUID, httprouter.Params) error) httprouter.Handle {
	want := sha256.Sum256([]byte(a.Token))
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(token))
		if !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeJSON(w, http.StatusUnauthorized, detail{"Unauthorized"})
			return
		}
		var customer uuid.UUID
		if header := r.Header.Get("X-Customer-ID"); header != "" {
			var err error
			if customer, err = uuid.Parse(header); err != nil {
				writeJSON(w, http.StatusBadRequest, detail{fmt.Sprintf("Invalid UUID format for X-Customer-ID: %.64q", header)})
				return
			}
			if item, err := a.Inventory.Item(r.Context(), "customers", customer, uuid.Nil); err == nil && item == nil {
				writeJSON(w, http.StatusNotFound, detail{fmt.Sprintf("Customer %s not found", customer)})
				return
			}
		}
		if err := next(w, r, customer, p); err != nil {
			a.Log.Error("admin request failed", "path", r.URL.Path, "err", err)
			writeJSON(w, http.StatusServiceUnavailable, detail{"The registry cannot be read just now."})
		}
	}
}

func writeBytes(w http.ResponseWriter, out []byte) {
	w.Header()["Content-Type"] = contentJSON
	w.Write(out)
}
