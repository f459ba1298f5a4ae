package bootstrap_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/bootstrap"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// spec is a token as kubeadm makes it by default.
func spec(t testing.TB) *bootstrap.Spec {
	return &bootstrap.Spec{
		Token: token(t, "abcdef.0123456789abcdef"), Expires: now.Add(24 * time.Hour),
		Usages: []string{bootstrap.Signing, bootstrap.Authentication}, Groups: []string{bootstrap.NodeGroup},
	}
}

func TestSpecIsChecked(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*bootstrap.Spec)
		want   string
	}{
		"kubeadm's default":                 {func(*bootstrap.Spec) {}, ""},
		"no usage":                          {func(s *bootstrap.Spec) { s.Usages = nil }, "good for nothing"},
		"an unknown usage":                  {func(s *bootstrap.Spec) { s.Usages = []string{"signing", "sign"} }, `usage "sign" is neither`},
		"an empty usage":                    {func(s *bootstrap.Spec) { s.Usages = []string{""} }, `usage "" is neither`},
		"groups without authentication":     {func(s *bootstrap.Spec) { s.Usages = []string{"signing"} }, "groups are for a token"},
		"signing alone, no groups":          {func(s *bootstrap.Spec) { s.Usages, s.Groups = []string{"signing"}, nil }, ""},
		"a group of the system":             {func(s *bootstrap.Spec) { s.Groups = []string{"system:masters"} }, `group "system:masters" is not`},
		"the group that all have":           {func(s *bootstrap.Spec) { s.Groups = []string{"system:bootstrappers"} }, "is not system:bootstrappers:NAME"},
		"a group without a name":            {func(s *bootstrap.Spec) { s.Groups = []string{"system:bootstrappers:"} }, "is not"},
		"a group that ends with -":          {func(s *bootstrap.Spec) { s.Groups = []string{"system:bootstrappers:a-"} }, "is not"},
		"a group in capitals":               {func(s *bootstrap.Spec) { s.Groups = []string{"system:bootstrappers:A"} }, "is not"},
		"a group with a line end":           {func(s *bootstrap.Spec) { s.Groups = []string{"system:bootstrappers:a\n"} }, "is not"},
		"a group of 256 characters":         {func(s *bootstrap.Spec) { s.Groups = []string{"system:bootstrappers:" + strings.Repeat("a", 256)} }, ""},
		"a group of more":                   {func(s *bootstrap.Spec) { s.Groups = []string{"system:bootstrappers:" + strings.Repeat("a", 257)} }, "is not"},
		"two groups in one, with a comma":   {func(s *bootstrap.Spec) { s.Groups = []string{"system:bootstrappers:a,system:masters"} }, "is not"},
		"a token that never expires is one": {func(s *bootstrap.Spec) { s.Expires = time.Time{} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t)
			test.change(s)
			err := s.Check()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("want %q, got %v", test.want, err)
			}
		})
	}
}

func TestWhatWasMadeIsRead(t *testing.T) {
	s := spec(t)
	s.Description = "rack 7"
	got := bootstrap.Read(s.Secret(), now)
	want := &bootstrap.Entry{
		Name: "bootstrap-token-abcdef", ID: "abcdef", Token: s.Token, Description: s.Description, Expires: s.Expires,
		Usages: []string{bootstrap.Authentication, bootstrap.Signing}, Groups: s.Groups,
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(bootstrap.Token{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestFaultsOfATokenAreFound(t *testing.T) {
	set := func(key, value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Data[key] = []byte(value) }
	}
	unset := func(keys ...string) func(*corev1.Secret) {
		return func(s *corev1.Secret) {
			for _, k := range keys {
				delete(s.Data, k)
			}
		}
	}
	for name, test := range map[string]struct {
		change func(*corev1.Secret)
		want   []string // severity, id and a part of the cause
		works  bool     // it is a token still
	}{
		"a good one":                           {func(*corev1.Secret) {}, nil, true},
		"one that ends this second":            {set("expiration", "2026-05-01T12:00:00Z"), []string{"warning bootstrap-token-expired: it expired at 2026-05-01T12:00:00Z"}, true},
		"one that ends the next":               {set("expiration", "2026-05-01T12:00:01Z"), nil, true},
		"one that ends in another time zone":   {set("expiration", "2026-05-01T15:00:01+02:00"), nil, true},
		"one that ended in another time zone":  {set("expiration", "2026-05-01T13:00:01+02:00"), []string{"warning bootstrap-token-expired: it expired at 2026-05-01T11:00:01Z"}, true},
		"an expiration that is no time":        {set("expiration", "tomorrow"), []string{"warning bootstrap-token-expired: the expiration is not a time"}, true},
		"one for ever":                         {unset("expiration"), []string{"warning bootstrap-token-unbounded: it never expires"}, true},
		"one for ever, with an empty field":    {set("expiration", ""), []string{"warning bootstrap-token-unbounded: it never expires"}, true},
		"one that is being deleted":            {func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: now} }, []string{"warning bootstrap-token-expired: it is being deleted"}, true},
		"no usage":                             {unset("usage-bootstrap-signing", "usage-bootstrap-authentication"), []string{"info bootstrap-token-usage: it has no usage"}, true},
		"no usage, for ever":                   {unset("usage-bootstrap-signing", "usage-bootstrap-authentication", "expiration"), []string{"warning bootstrap-token-unbounded", "warning bootstrap-token-usage: it has no usage, and is good for nothing"}, true},
		"no signing":                           {unset("usage-bootstrap-signing"), []string{"info bootstrap-token-usage: it may not sign"}, true},
		"no authentication":                    {unset("usage-bootstrap-authentication"), []string{"info bootstrap-token-usage: it may not authenticate"}, true},
		"a usage that is True":                 {set("usage-bootstrap-signing", "True"), []string{"warning bootstrap-token-usage: only the value true", "info bootstrap-token-usage: it may not sign"}, true},
		"an unknown usage":                     {set("usage-bootstrap-sing", "true"), []string{"warning bootstrap-token-usage: there is no such usage"}, true},
		"a group that the API server refuses":  {set("auth-extra-groups", bootstrap.NodeGroup+", system:bootstrappers:a"), []string{`warning bootstrap-token-usage: group " system:bootstrappers:a" is not`}, true},
		"groups that end with a comma":         {set("auth-extra-groups", bootstrap.NodeGroup+","), []string{`warning bootstrap-token-usage: group "" is not`}, true},
		"another group than kubeadm's":         {set("auth-extra-groups", "system:bootstrappers:a"), []string{"info bootstrap-token-usage: it is not in group"}, true},
		"no group":                             {unset("auth-extra-groups"), []string{"info bootstrap-token-usage: it is not in group"}, true},
		"another id":                           {set("token-id", "zzzzzz"), []string{"error bootstrap-token-malformed: the Secret's name is of token abcdef, and its token-id of zzzzzz"}, false},
		"no id":                                {unset("token-id"), []string{"error bootstrap-token-malformed: the id does not have"}, false},
		"an id in capitals":                    {set("token-id", "ABCDEF"), []string{"error bootstrap-token-malformed: the id does not have"}, false},
		"no secret":                            {unset("token-secret"), []string{"error bootstrap-token-malformed: the secret does not have"}, false},
		"a secret with a line end":             {set("token-secret", "0123456789abcdef\n"), []string{"error bootstrap-token-malformed: the secret does not have"}, false},
		"a secret with a dot":                  {set("token-secret", "01234567.9abcdef"), []string{"error bootstrap-token-malformed: the secret does not have"}, false},
		"a Secret of another type":             {func(s *corev1.Secret) { s.Type = "Opaque" }, []string{`error bootstrap-token-malformed: the Secret is of type "Opaque"`}, true},
		"a Secret of another name":             {func(s *corev1.Secret) { s.Name = "mine" }, []string{"error bootstrap-token-malformed: the Secret of token abcdef has to be called"}, false},
		"two faults, told in the order of use": {unset("expiration", "usage-bootstrap-signing"), []string{"warning bootstrap-token-unbounded", "info bootstrap-token-usage"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			secret := spec(t).Secret()
			test.change(secret)
			e := bootstrap.Read(secret, now)
			var got []string
			for _, f := range e.Findings {
				got = append(got, f.Severity+" "+f.ID+": "+f.Cause)
				if strings.Contains(f.Cause+f.Fix+f.Field, "0123456789") {
					t.Errorf("the finding tells the secret: %+v", f)
				}
			}
			if !slices.EqualFunc(got, test.want, strings.HasPrefix) {
				t.Errorf("want %q, got %q", test.want, got)
			}
			if e.Token.IsZero() == test.works {
				t.Errorf("the token is %s", e.Token)
			}
		})
	}
	if e := bootstrap.Read(&corev1.Secret{}, now); len(e.Findings) == 0 || !e.Token.IsZero() {
		t.Errorf("an empty Secret is read as %+v", e)
	}
}

func TestATokenIsNamedByItsSecretsName(t *testing.T) {
	for name, test := range map[string]struct{ secret, tokenID, id, remake string }{
		"both agree":               {"bootstrap-token-abcdef", "abcdef", "abcdef", ""},
		"token-id names a twin":    {"bootstrap-token-abcdef", "zzzzzz", "abcdef", "kubepki token delete abcdef && "},
		"token-id is none":         {"bootstrap-token-abcdef", "", "abcdef", "kubepki token delete abcdef && "},
		"the name is of no token":  {"mine", "zzzzzz", "", "kubectl -n kube-system delete secret mine && "},
		"the id of it is too long": {"bootstrap-token-abcdefg", "abcdef", "", "kubectl -n kube-system delete secret bootstrap-token-abcdefg && "},
		"the name is an id alone":  {"abcdef", "abcdef", "", "kubectl -n kube-system delete secret abcdef && "},
	} {
		t.Run(name, func(t *testing.T) {
			secret := spec(t).Secret()
			secret.Name, secret.Data["token-id"] = test.secret, []byte(test.tokenID)
			e := bootstrap.Read(secret, now)
			if e.ID != test.id {
				t.Errorf("the id is %q, want %q", e.ID, test.id)
			}
			if test.remake == "" {
				if len(e.Findings) > 0 {
					t.Errorf("findings %+v", e.Findings)
				}
				return
			}
			if len(e.Findings) != 1 || e.Findings[0].Fix != test.remake+"kubepki token create" {
				t.Errorf("findings %+v, want the fix %q", e.Findings, test.remake)
			}
			// The fix of a token without an end spares its twin too.
			delete(secret.Data, "expiration")
			fix := bootstrap.Read(secret, now).Findings[1].Fix
			if fix != test.remake+"kubepki token create --ttl 24h" {
				t.Errorf("the fix of one without an end is %q", fix)
			}
		})
	}
}

func TestSubjectsOfManifestsHaveTheGroupThatTheAPIServerGives(t *testing.T) {
	objects, err := bootstrap.Manifests(spec(t), server, caPEM(authority(t)))
	if err != nil {
		t.Fatal(err)
	}
	var subjects []rbacv1.Subject
	for _, o := range objects {
		switch o := o.(type) {
		case *rbacv1.RoleBinding:
			subjects = append(subjects, o.Subjects...)
		case *rbacv1.ClusterRoleBinding:
			subjects = append(subjects, o.Subjects...)
		}
	}
	if len(subjects) != 5 {
		t.Errorf("%d subjects, want 5", len(subjects))
	}
	for _, s := range subjects {
		if s.APIGroup != "rbac.authorization.k8s.io" {
			t.Errorf("%s %q has the group %q", s.Kind, s.Name, s.APIGroup)
		}
	}
}

func TestManifestsAreSignedWhereTheTokenMaySign(t *testing.T) {
	ca := authority(t)
	pem := clusterInfo(t, nil)["kubeconfig"]
	if !strings.Contains(pem, `name: ""`) {
		t.Fatalf("kubeconfig\n%s", pem)
	}
	for _, usages := range [][]string{{"signing"}, {"authentication"}} {
		s := spec(t)
		s.Usages = usages
		objects, err := bootstrap.Manifests(s, server, caPEM(ca))
		if err != nil {
			t.Fatal(err)
		}
		data, err := bootstrap.EncodeManifests(objects)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(data), "jws-kubeconfig-abcdef: "); got != (usages[0] == "signing") {
			t.Errorf("%s: signed %t", usages, got)
		}
		if n := strings.Count(string(data), "\n---\n"); n != 8 {
			t.Errorf("%d documents, want 9", n+1)
		}
	}
}
