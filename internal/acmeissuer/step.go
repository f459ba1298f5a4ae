package acmeissuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/mholt/acmez/v3/acme"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// Orders answers CertificateRequests of ACME issuers. It is safe for concurrent use;
// of one request one Step is to run at a time.
type Orders struct {
	Client   *Client
	Accounts *Accounts
	Solvers  *Solvers
	Log      *slog.Logger
	Now      func() time.Time
	// Event tells users of a step, on an Order or a Challenge, with cert-manager's
	// reasons. It may be nil.
	Event func(object runtime.Object, warning bool, reason, message string)
	// Replaced returns the certificate that a request is to replace, or nil, for the
	// server to know a renewal by (RFC 9773 section 5). It may be nil.
	Replaced func(context.Context, *cmapi.CertificateRequest) *x509.Certificate
}

func (o *Orders) event(object runtime.Object, warning bool, reason, message string) {
	if o.Event != nil {
		o.Event(object, warning, reason, message)
	}
}

// Verdict is how far a request is.
type Verdict string

// The verdicts of a Step.
const (
	Issued  Verdict = "Issued"  // Answer.Chain holds the certificate
	Pending Verdict = "Pending" // Step is to be called again after Answer.Again
	Failed  Verdict = "Failed"  // the request will never be answered
)

// Answer is what a Step came to.
type Answer struct {
	Verdict Verdict
	// Reason and Message tell the user: cert-manager's reasons.
	Reason, Message string
	// Chain is PEM, the leaf first. ACME has no ca.crt.
	Chain []byte
	Again time.Duration
	// Reverify asks that [Accounts.Verify] be called for the issuer: it is not ready,
	// or the server knows its account no more.
	Reverify bool
}

// The reasons of answers.
const (
	badRequest   = "RequestParsingError"
	invalidOrder = "InvalidOrder"
	orderFailed  = "OrderFailed"
	orderPending = "OrderPending"
)

// errAgain ends a Step that has to wait.
type errAgain struct {
	after  time.Duration
	reason string
}

func (e *errAgain) Error() string { return e.reason }

// Step takes a request that is approved as far as it goes without waiting. An error is
// one of the Kubernetes API: the caller tries again, later and later.
func (o *Orders) Step(ctx context.Context, cr *cmapi.CertificateRequest, issuer cmapi.GenericIssuer) (Answer, error) {
	config := issuer.GetSpec().ACME
	if config == nil {
		return Answer{}, errors.New("the issuer has no spec.acme")
	}
	request, err := readRequest(cr.Spec.Request)
	if err != nil {
		return Answer{Verdict: Failed, Reason: badRequest, Message: "Failed to decode CSR in spec.request: " + bounded(err.Error())}, nil
	}
	if err := checkNames(request); err != nil {
		return Answer{Verdict: Failed, Reason: invalidOrder, Message: bounded(err.Error())}, nil
	}
	order, err := o.find(ctx, cr, request, config)
	if err != nil {
		return Answer{}, err
	}
	if !metav1.IsControlledBy(order, cr) {
		return Answer{Verdict: Pending, Reason: orderPending, Again: afterError, Message: fmt.Sprintf("The order %s/%s is of another request: it goes with that", order.Namespace, order.Name)}, nil
	}
	w := &work{Orders: o, issuer: issuer, order: order, request: request}
	w.ctx, w.hint = withHint(ctx)
	return w.run()
}

// find returns the order of a request, and makes it where there is none.
func (o *Orders) find(ctx context.Context, cr *cmapi.CertificateRequest, request *x509.CertificateRequest, config *cmacme.ACMEIssuer) (*cmacme.Order, error) {
	wanted, err := orderOf(cr, request, config, "")
	if err != nil {
		return nil, err
	}
	api := o.Client.orders(cr.Namespace)
	order, err := api.Get(ctx, wanted.Name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return order, err
	}
	if o.Replaced != nil {
		if old := o.Replaced(ctx, cr); old != nil && len(old.AuthorityKeyId) > 0 {
			wanted.Spec.Replaces, _ = acme.ARIUniqueIdentifier(old)
		}
	}
	return api.Create(ctx, wanted, metav1.CreateOptions{FieldManager: fieldManager})
}

// work is one Step on one order.
type work struct {
	*Orders
	ctx     context.Context
	hint    *hint
	issuer  cmapi.GenericIssuer
	order   *cmacme.Order
	request *x509.CertificateRequest
	session *session
}

// maxActs bounds what one Step does: an order has eight stages, and each is passed
// once or twice.
const maxActs = 20

func (w *work) run() (Answer, error) {
	for range maxActs {
		next := nextOfOrder(w.order)
		switch next {
		case finish:
			return w.issued()
		case giveUp:
			return w.failed()
		}
		before := w.order.Status.DeepCopy()
		err := w.speak(next)
		if saveErr := w.save(before); saveErr != nil {
			return Answer{}, saveErr
		}
		if err != nil {
			return w.pending(err)
		}
	}
	return Answer{Verdict: Pending, Reason: orderPending, Message: w.waiting(), Again: afterError}, nil
}

// speak does one act, with the server's account. What comes of it stands in the
// order's status afterwards.
func (w *work) speak(next act) error {
	if w.session == nil {
		s, err := w.Accounts.sessionFor(w.ctx, w.issuer)
		if err != nil {
			return w.noSession(err)
		}
		w.session = s
	}
	err := map[act]func() error{
		placeOrder: w.place, readAuthorizations: w.readAuthorizations, proveNames: w.prove,
		askOrder: w.ask, finalize: w.finalize, fetchCertificate: w.fetch,
	}[next]()
	var wait *errAgain
	if err == nil || errors.As(err, &wait) || isAPIError(err) {
		return err
	}
	p, _ := problemOf(err)
	if p.Type == acme.ProblemTypeAccountDoesNotExist {
		w.Accounts.distrust(w.issuer.GetUID())
		return err
	}
	if w.Log != nil {
		w.Log.Warn("acme: order", "order", w.order.Name, "namespace", w.order.Namespace, "error", bounded(err.Error()))
	}
	if lasting(err) {
		w.end(cmacme.Errored, whatFailed[next]+say(err))
		return nil
	}
	w.order.Status.Reason = say(err)
	return err
}

// noSession tells why nothing can be said to the server. That is mended at the issuer,
// and no order fails of it.
func (w *work) noSession(err error) error {
	switch {
	case errors.Is(err, errNotReady):
		return err
	case apierrors.IsNotFound(err):
		return errNotReady
	case isAPIError(err):
		return err
	}
	w.order.Status.Reason = say(err)
	return &errAgain{after: again(w.hint, err), reason: say(err)}
}

// whatFailed stands before the reason of an order that the server refused.
var whatFailed = map[act]string{
	placeOrder: "Failed to create Order: ", readAuthorizations: "Failed to fetch authorization: ", proveNames: "Failed to prove names: ",
	askOrder: "Failed to retrieve Order resource: ", finalize: "Failed to finalize Order: ", fetchCertificate: "Failed to retrieve signed certificate: ",
}

// isAPIError tells an error of the Kubernetes API from one of an ACME server.
func isAPIError(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// end brings the order to a bad end.
func (w *work) end(state cmacme.State, reason string) {
	w.order.Status.State, w.order.Status.Reason = state, bounded(reason)
	w.order.Status.FailureTime = new(metav1.NewTime(w.Now()))
	w.event(w.order, true, "Failed", w.order.Status.Reason)
}

// save writes the order's status where it has changed.
func (w *work) save(before *cmacme.OrderStatus) error {
	if apiequality.Semantic.DeepEqual(before, &w.order.Status) {
		return nil
	}
	saved, err := w.Client.orders(w.order.Namespace).UpdateStatus(w.ctx, w.order, metav1.UpdateOptions{FieldManager: fieldManager})
	if err != nil {
		return err
	}
	w.order = saved
	return nil
}

func (w *work) place() error {
	s := &w.order.Spec
	order := acme.Order{Identifiers: identifiers(s), Profile: s.Profile}
	if s.Duration != nil {
		order.NotAfter = new(w.Now().Add(s.Duration.Duration).UTC().Truncate(time.Second))
	}
	if s.Profile != "" {
		if m := w.session.directory.Meta; m == nil || m.Profiles[s.Profile] == "" {
			return told(fmt.Sprintf("the server offers no profile %q: mend spec.acme.profile", s.Profile))
		}
	}
	if s.Replaces != "" && w.session.directory.RenewalInfo != "" {
		order.Replaces = s.Replaces
	}
	got, err := w.session.client.NewOrder(w.ctx, w.session.account, order)
	if p, ok := problemOf(err); ok && order.Replaces != "" && (p.Type == acme.ProblemTypeAlreadyReplaced || p.Type == acme.ProblemTypeMalformed || p.Type == acme.ProblemTypeUnauthorized) {
		// That it renews is a hint: no reason to have no certificate.
		order.Replaces = ""
		got, err = w.session.client.NewOrder(w.ctx, w.session.account, order)
	}
	if err != nil {
		return err
	}
	if got.Location == "" {
		return errors.New("the server gave no URL of the order")
	}
	w.take(got)
	w.order.Status.URL = got.Location
	return nil
}

// take takes what the server says of an order into its status.
func (w *work) take(got acme.Order) {
	s := &w.order.Status
	s.FinalizeURL, s.Reason = got.Finalize, ""
	if len(s.Authorizations) == 0 {
		for _, u := range got.Authorizations {
			s.Authorizations = append(s.Authorizations, cmacme.ACMEAuthorization{URL: u})
		}
	}
	switch state := cmacme.State(got.Status); state {
	case cmacme.Pending, cmacme.Ready, cmacme.Processing, cmacme.Valid:
		s.State = state
	case cmacme.Invalid:
		why := "the server calls the order invalid"
		if got.Error != nil {
			why = say(got.Error)
		}
		w.end(cmacme.Invalid, why)
	default:
		w.end(cmacme.Errored, fmt.Sprintf("the server calls the order %.40q", got.Status))
	}
}

func (w *work) readAuthorizations() error {
	for i := range w.order.Status.Authorizations {
		a := &w.order.Status.Authorizations[i]
		if a.Identifier != "" {
			continue
		}
		got, err := w.session.client.GetAuthorization(w.ctx, w.session.account, a.URL)
		if err != nil {
			return err
		}
		if got.Identifier.Value == "" {
			return errors.New("the server gave an authorization of no name")
		}
		a.InitialState, a.Identifier, a.Wildcard = cmacme.State(got.Status), got.Identifier.Value, &got.Wildcard
		for _, c := range got.Challenges {
			a.Challenges = append(a.Challenges, cmacme.ACMEChallenge{URL: c.URL, Token: c.Token, Type: c.Type})
		}
	}
	return nil
}

// ask asks the server how far the order is.
func (w *work) ask() error {
	got, err := w.session.client.GetOrder(w.ctx, w.session.account, acme.Order{Location: w.order.Status.URL})
	if err != nil {
		return err
	}
	w.take(got)
	switch w.order.Status.State {
	case cmacme.Invalid:
		challenges, err := w.owned()
		if err != nil {
			return err
		}
		w.order.Status.Reason = reasonOf(w.order.Status.Reason, challenges)
	case cmacme.Pending, cmacme.Processing:
		return w.wait("the server is at work on the order")
	}
	return nil
}

// wait ends a Step: the server's own time is kept where it named one.
func (w *work) wait(reason string) error {
	return &errAgain{after: max(w.hint.retryAfter, w.Solvers.poll()), reason: reason}
}

func (w *work) finalize() error {
	got, finalizeErr := w.session.client.FinalizeOrder(w.ctx, w.session.account, acme.Order{
		Location: w.order.Status.URL, Finalize: w.order.Status.FinalizeURL, Authorizations: urlsOf(w.order.Status.Authorizations),
	}, w.request.Raw)
	p, refused := problemOf(finalizeErr)
	switch {
	case refused && got.Status == "" && p.Type != acme.ProblemTypeOrderNotReady:
		return finalizeErr
	case finalizeErr != nil:
		// The order was finalised before, perhaps by a process that ended then, or the
		// server needs time. Either way it is asked next.
		w.order.Status.State = cmacme.Processing
	default:
		w.take(got)
	}
	return nil
}

func urlsOf(all []cmacme.ACMEAuthorization) []string {
	var urls []string
	for _, a := range all {
		urls = append(urls, a.URL)
	}
	return urls
}

// fetch brings the certificate of a valid order.
func (w *work) fetch() error {
	got, err := w.session.client.GetOrder(w.ctx, w.session.account, acme.Order{Location: w.order.Status.URL})
	if err != nil {
		return err
	}
	if got.Certificate == "" {
		w.take(got)
		return w.wait("the server gave no URL of the certificate yet")
	}
	chains, err := w.session.client.GetCertificateChain(w.ctx, w.session.account, got.Certificate)
	if err != nil {
		return err
	}
	chain := preferred(chains, w.issuer.GetSpec().ACME.PreferredChain)
	if err := checkChain(chain, w.request); err != nil {
		return told("the server's certificate is of no use: " + err.Error())
	}
	w.order.Status.Certificate, w.order.Status.Reason = trust.EncodeCertificates(chain...), ""
	w.event(w.order, false, "Complete", "Order completed successfully")
	return nil
}

// preferred returns the chain whose topmost certificate was issued by the wished name,
// or the server's own choice.
func preferred(chains []acme.Certificate, wish string) []*x509.Certificate {
	var first []*x509.Certificate
	for _, c := range chains {
		parsed, err := trust.ParseCertificates(c.ChainPEM)
		if err != nil || len(parsed) == 0 {
			continue
		}
		if first == nil {
			first = parsed
		}
		if wish != "" && parsed[len(parsed)-1].Issuer.CommonName == wish {
			return parsed
		}
	}
	return first
}

// checkChain refuses a certificate that is not for the request's key and names.
func checkChain(chain []*x509.Certificate, r *x509.CertificateRequest) error {
	if len(chain) == 0 {
		return errors.New("it is no chain of certificates in PEM")
	}
	if !trust.SameKey(chain[0].PublicKey, r.PublicKey) {
		return errors.New("it is for another key than the request's")
	}
	for _, name := range r.DNSNames {
		if !slices.ContainsFunc(chain[0].DNSNames, func(has string) bool { return strings.EqualFold(has, name) }) {
			return fmt.Errorf("it is not for %q", name)
		}
	}
	return nil
}

// issued hands the certificate on, once more compared with the request: the order may
// have been written by others.
func (w *work) issued() (Answer, error) {
	if err := w.tidy(true); err != nil {
		return Answer{}, err
	}
	chain, err := trust.ParseCertificates(w.order.Status.Certificate)
	if err == nil {
		err = checkChain(chain, w.request)
	}
	if err != nil {
		return Answer{Verdict: Failed, Reason: orderFailed, Message: fmt.Sprintf("The certificate of order %q does not answer the request: %v", w.order.Name, err)}, nil
	}
	return Answer{Verdict: Issued, Reason: cmapi.CertificateRequestReasonIssued, Message: "Certificate fetched from issuer successfully", Chain: trust.EncodeCertificates(chain...)}, nil
}

func (w *work) failed() (Answer, error) {
	if err := w.tidy(false); err != nil {
		return Answer{}, err
	}
	s := w.order.Status
	return Answer{Verdict: Failed, Reason: orderFailed, Message: bounded(fmt.Sprintf("Failed to wait for order resource %q to become ready: order is in %q state: %s", w.order.Name, s.State, s.Reason))}, nil
}

// pending tells what an order waits for.
func (w *work) pending(err error) (Answer, error) {
	a := Answer{Verdict: Pending, Reason: orderPending, Message: w.waiting()}
	var wait *errAgain
	p, _ := problemOf(err)
	switch {
	case errors.As(err, &wait):
		a.Again = wait.after
		a.Message += ": " + wait.reason
	case isAPIError(err):
		return Answer{}, err
	case errors.Is(err, errNotReady), p.Type == acme.ProblemTypeAccountDoesNotExist:
		a.Reverify, a.Again = true, w.Solvers.poll()
		a.Message += ": " + say(err)
	default:
		a.Again = again(w.hint, err)
		a.Message += ": " + say(err)
	}
	a.Message = bounded(a.Message)
	return a, nil
}

func (w *work) waiting() string {
	return fmt.Sprintf("Waiting on certificate issuance from order %s/%s: %q", w.order.Namespace, w.order.Name, w.order.Status.State)
}

// RenewalInfo asks an issuer's server when a certificate shall be renewed (RFC 9773). ok is
// false where the server offers no such information: leaf is not asked for then. An error
// may be shown to users.
func (o *Orders) RenewalInfo(ctx context.Context, issuer cmapi.GenericIssuer, leaf func() (*x509.Certificate, error)) (info workload.RenewalInfo, ok bool, err error) {
	s, err := o.Accounts.sessionFor(ctx, issuer)
	if err != nil {
		o.Accounts.log("ACME server", issuer, err)
		return info, false, told(say(err))
	}
	if s.directory.RenewalInfo == "" {
		return info, false, nil
	}
	certificate, err := leaf()
	if err != nil {
		return info, false, told(err.Error())
	}
	said, err := s.full.GetRenewalInfo(ctx, certificate)
	if err != nil {
		o.Accounts.log("renewal information", issuer, err)
		return info, false, told(say(err))
	}
	info = workload.RenewalInfo{Start: said.SuggestedWindow.Start, End: said.SuggestedWindow.End, Explanation: said.ExplanationURL}
	if said.RetryAfter != nil {
		info.RetryAfter = said.RetryAfter.Sub(o.Now())
	}
	return info, true, nil
}

// tidy cleans up after an order's challenges: those of an order that is done go, those
// of one that failed stay to be read.
func (w *work) tidy(remove bool) error {
	challenges, err := w.owned()
	if err != nil {
		return err
	}
	for _, c := range challenges {
		if _, err := w.finishChallenge(w.ctx, c, w.issuer); err != nil {
			return err
		}
		if !remove {
			continue
		}
		if err := w.Client.challenges(c.Namespace).Delete(w.ctx, c.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(c.UID))}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// owned returns the challenges of the order, those among them that a change of the
// issuer's solvers has left behind.
func (w *work) owned() ([]*cmacme.Challenge, error) {
	var all []*cmacme.Challenge
	err := w.Client.eachChallenge(w.ctx, w.order.Namespace, func(c *cmacme.Challenge) {
		if metav1.IsControlledBy(c, w.order) {
			all = append(all, c.DeepCopy())
		}
	})
	return all, err
}
