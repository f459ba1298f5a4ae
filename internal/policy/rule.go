package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/workload"
)

const (
	// maxCost is the cost up to which an expression is evaluated, in CEL's own
	// units: as for one expression of a ValidatingAdmissionPolicy
	// (k8s.io/apiserver/pkg/apis/cel PerCallLimit).
	maxCost = 1_000_000
	// maxTime bounds the time of one evaluation, whatever the machine.
	maxTime = 200 * time.Millisecond
	// maxExpression is the size of an expression in characters.
	maxExpression = 16 << 10
)

// environment declares what an expression may speak of: what requests of all kinds have,
// and some variables more.
func environment(more ...cel.EnvOption) (*cel.Env, error) {
	text, list := cel.StringType, cel.ListType(cel.StringType)
	return cel.NewEnv(append([]cel.EnvOption{
		cel.Variable("request.name", text),
		cel.Variable("request.username", text),
		cel.Variable("request.groups", list),
		cel.Variable(workload.VarUsages, list),
		cel.Variable(workload.VarCommonName, text),
		cel.Variable(workload.VarOrganizations, list),
		cel.Variable(workload.VarOrganizationalUnits, list),
		cel.Variable(workload.VarDNSNames, list),
		cel.Variable(workload.VarEmailAddresses, list),
		cel.Variable(workload.VarURIs, list),
		cel.Variable(workload.VarIPAddresses, list),
		cel.Variable("key.kind", text),
		cel.Variable("key.bits", cel.IntType),
		cel.ParserExpressionSizeLimit(maxExpression),
		ext.Strings(), ext.Sets(), ext.Network(),
	}, more...)...)
}

// signingEnvironment declares what the expressions of a SigningPolicy may speak of.
func signingEnvironment() (*cel.Env, error) {
	text, list := cel.StringType, cel.ListType(cel.StringType)
	return environment(
		cel.Variable("request.signerName", text),
		cel.Variable("request.extra", cel.MapType(text, list)),
		cel.Variable("request.expirationSeconds", cel.IntType),
	)
}

func variables(r csr.Request, a *csr.Asked) map[string]any {
	addresses := make([]string, 0, len(a.IPAddresses))
	for _, ip := range a.IPAddresses {
		addresses = append(addresses, ip.String())
	}
	seconds := int64(0)
	if r.ExpirationSeconds != nil {
		seconds = int64(*r.ExpirationSeconds)
	}
	return map[string]any{
		"request.name": r.Name, "request.signerName": r.SignerName, "request.username": r.Username,
		"request.groups": r.Groups, "request.extra": r.Extra, "request.usages": r.Usages, "request.expirationSeconds": seconds,
		"subject.commonName": a.CommonName, "subject.organizations": a.Organizations, "subject.organizationalUnits": a.OrganizationalUnits,
		"dnsNames": a.DNSNames, "emailAddresses": a.EmailAddresses, "uris": a.URIs, "ipAddresses": addresses,
		"key.kind": a.Key.Kind, "key.bits": int64(a.Key.Bits),
	}
}

// compile turns an expression into what a rule does. What it returns may be
// used by several goroutines.
func compile(expression string) (func(csr.Request, *csr.Asked) (bool, error), error) {
	env, err := signingEnvironment()
	if err != nil {
		return nil, fmt.Errorf("preparing CEL: %w", err)
	}
	_, program, err := compileIn(env, expression)
	if err != nil {
		return nil, err
	}
	return func(r csr.Request, a *csr.Asked) (bool, error) { return evaluate(program, variables(r, a)) }, nil
}

// compileIn checks an expression that is true or false.
func compileIn(env *cel.Env, expression string) (*cel.Ast, cel.Program, error) {
	ast, issues := env.Compile(expression)
	if err := issues.Err(); err != nil {
		first := issues.Errors()[0]
		return nil, nil, fmt.Errorf("line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, oneLine(errors.New(first.Message)))
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, nil, fmt.Errorf("the expression is of type %s: wanted is true or false (bool)", ast.OutputType())
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, nil, errors.New(oneLine(err))
	}
	return ast, program, nil
}

// evaluate bounds what an evaluation costs. An error says nothing of the request.
func evaluate(program cel.Program, variables map[string]any) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	value, _, err := program.ContextEval(ctx, variables)
	if err != nil {
		return false, errors.New(oneLine(err))
	}
	approves, ok := value.Value().(bool)
	if !ok {
		return false, errors.New("the expression came to neither true nor false")
	}
	return approves, nil
}
