"""Each row of the FAPI checklist has a test by name, or a written reason why there is none; so has each certification module.

The rows are those of the checklist of the domain (UAE, AS, JO, RS, CL: 155 of them) as corrected by its decisions; a name
must be that of a test function in this repository.
"""

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SUITE = "test_fapi2_security_profile_final_"
GROUPS = {
    "UAE": 19, "AS-TLS": 8, "AS-MD": 4, "AS-CA": 13, "AS-PAR": 23, "AS-RAR": 7, "AS-AZ": 11, "AS-TK": 13, "AS-DP": 8,
    "AS-ID": 3, "AS-IR": 6, "AS-DCR": 5, "JO": 10, "RS": 15, "CL": 10,
}  # fmt: skip

ROWS = {
    "AS-MD-01": ["test_metadata_agrees_with_the_routes"],
    "AS-MD-02": [
        "test_discovery_end_point_verification",
        "test_metadata_tells_what_is_switched_on",
    ],
    "AS-MD-04": ["test_metadata_agrees_with_the_routes"],
    "AS-CA-01": ["test_who_calls_is_checked_everywhere"],
    "AS-CA-02": [
        "test_ensure_client_assertion_in_token_endpoint",
        "test_a_wrong_assertion_type_is_refused_and_the_right_one_may_be_percent_encoded",
    ],
    "AS-CA-03": ["test_ensure_client_assertion_with_no_sub_fails"],
    "AS-CA-04": ["test_par_test_array_or_endpoint_url_as_audience_fails"],
    "AS-CA-05": [
        "test_an_assertion_over_five_minutes_is_refused",
        "test_registered_claims_of_wrong_type_are_refused",
        "test_par_ensure_jwt_client_assertions_nbf_over_60_seconds_in_the_future_fails",
    ],
    "AS-CA-06": [
        "test_the_same_assertion_at_par_and_token_works_once",
        "test_one_of_fifty_authenticates_with_an_assertion",
    ],
    "AS-CA-07": [
        "test_ensure_signed_client_assertion_with_rs256_fails",
        "test_foreign_algorithms_are_refused",
    ],
    "AS-CA-08": ["test_embedded_keys_are_refused", "test_an_unknown_key_is_worth_one_refresh"],
    "AS-CA-09": ["test_a_request_object_is_no_client_assertion"],
    "AS-CA-10": ["test_a_basic_header_beside_a_good_assertion_is_ignored"],
    "AS-CA-11": ["test_another_clients_certificate_is_refused"],
    "AS-CA-13": ["test_a_certificate_alone_may_authenticate"],
    "AS-PAR-01": ["test_par_answers_201_and_stages_the_consent", "test_only_forms_are_read"],
    "AS-PAR-02": ["test_who_calls_is_checked_everywhere"],
    "AS-PAR-03": ["test_a_request_without_par_gets_the_error_page"],
    "AS-PAR-04": ["test_par_authorization_request_containing_request_uri"],
    "AS-PAR-05": ["test_ensure_unsigned_request_at_par_endpoint_fails"],
    "AS-PAR-06": ["test_a_badly_signed_object_is_refused"],
    "AS-PAR-07": ["test_a_bad_parameter_is_refused_at_par"],
    "AS-PAR-08": ["test_ensure_request_object_with_multiple_aud_succeeds"],
    "AS-PAR-09": ["test_ensure_expired_and_overlong_request_objects_fail"],
    "AS-PAR-10": ["test_a_badly_signed_object_is_refused"],
    "AS-PAR-11": [
        "test_a_client_assertion_is_no_request_object",
        "test_sub_inside_a_request_object_is_ignored",
    ],
    "AS-PAR-12": ["test_a_request_objects_jti_is_burnt_by_success_only"],
    "AS-PAR-13": ["test_ensure_response_type_code_idtoken_and_token_fail"],
    "AS-PAR-14": ["test_par_ensure_pkce_required_and_plain_rejected"],
    "AS-PAR-15": ["test_ensure_registered_redirect_uri"],
    "AS-PAR-16": ["test_ensure_other_scope_order_succeeds"],
    "AS-PAR-17": ["test_ensure_authorization_request_with_64_char_nonce_and_long_nonce"],
    "AS-PAR-18": ["test_a_bad_parameter_is_refused_at_par"],
    "AS-PAR-19": [
        "test_ambiguous_and_broken_forms_are_refused",
        "test_duplicate_members_are_refused",
    ],
    "AS-PAR-20": ["test_one_of_fifty_finishes_a_request"],
    "AS-PAR-21": ["test_every_request_leaves_exactly_one_event"],
    "AS-PAR-22": "encrypted request objects are not offered: Enc1 is the bank's key, not the Hub's",
    "AS-PAR-23": ["test_dpop_jkt_and_the_proof_at_par_must_agree"],
    "AS-RAR-01": ["test_a_bad_parameter_is_refused_at_par"],
    "AS-RAR-02": ["test_a_type_of_another_role_is_refused"],
    "AS-RAR-03": [
        "test_the_schema_of_the_contract_decides",
        "test_a_bad_consent_is_refused_at_par",
    ],
    "AS-RAR-04": ["test_the_scope_must_fit_the_type"],
    "AS-RAR-05": ["test_a_used_consent_id_is_refused", "test_one_of_fifty_opens_a_consent"],
    "AS-RAR-06": ["test_a_token_request_cannot_bring_details"],
    "AS-RAR-07": ["test_the_signed_request_is_kept_and_verifies_again"],
    "AS-AZ-01": ["test_outer_parameters_are_never_used"],
    "AS-AZ-02": ["test_another_clients_request_gets_the_error_page"],
    "AS-AZ-03": ["test_do_fail_carries_the_banks_words"],
    "AS-AZ-04": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-AZ-05": ["test_user_rejects_authentication"],
    "AS-AZ-06": ["test_the_callback_keeps_the_registered_query"],
    "AS-AZ-07": "pages and sessions are the bank's; the interaction is test_the_first_decision_of_any_interaction_ends_all",
    "AS-AZ-08": ["test_a_tenant_may_send_browsers_on_itself"],
    "AS-AZ-09": ["test_prompt_none_is_told_to_the_tpp"],
    "AS-AZ-10": ["test_jarm_carries_the_answer_in_a_signed_response"],
    "AS-AZ-11": ["test_a_failed_redemption_does_not_burn_the_code"],
    "AS-TK-01": ["test_a_failed_redemption_does_not_burn_the_code"],
    "AS-TK-02": ["test_ensure_token_endpoint_fails_with_expired_auth_code"],
    "AS-TK-03": ["test_one_of_fifty_redeems_a_code_and_the_grant_is_then_revoked"],
    "AS-TK-04": ["test_another_client_neither_redeems_nor_burns_a_code"],
    "AS-TK-05": ["test_ensure_holder_of_key_required"],
    "AS-TK-06": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-TK-07": ["test_a_renewed_certificate_of_the_same_client_may_refresh", "test_refresh_token"],
    "AS-TK-08": ["test_a_suspended_consent_keeps_its_refresh_token_until_it_is_lifted"],
    "AS-TK-09": ["test_a_failed_refresh_leaves_the_refresh_token_alive"],
    "AS-TK-10": ["test_client_credentials_need_scopes_of_the_role"],
    "AS-TK-11": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-TK-12": ["test_a_description_holds_only_what_the_rfc_allows"],
    "AS-DP-01": ["test_a_bad_proof_is_refused", "test_exactly_one_header_is_expected"],
    "AS-DP-02": ["test_query_fragment_case_and_default_port_do_not_matter"],
    "AS-DP-03": ["test_ten_seconds_of_skew_are_tolerated"],
    "AS-DP-04": [
        "test_a_proof_is_single_use",
        "test_one_of_fifty_uses_a_proof",
        "test_f5_a_used_proof_stays_used_after_a_restart",
    ],
    "AS-DP-06": ["test_a_proof_at_par_binds_the_code", "test_dpop_jkt_binds_the_code"],
    "AS-DP-07": ["test_the_proofs_of_rfc_9449_pass", "test_a_bound_refresh_token_needs_its_key"],
    "AS-DP-08": ["test_tolerated_claims"],
    "AS-ID-01": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-ID-02": ["test_userinfo_says_who_the_customer_is"],
    "AS-ID-03": ["test_test_claims_parameter_identity_claims"],
    "AS-IR-01": ["test_a_foreign_token_is_neither_shown_nor_revoked"],
    "AS-IR-02": ["test_a_foreign_token_is_neither_shown_nor_revoked"],
    "AS-IR-03": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-IR-04": ["test_introspection_is_signed_when_asked_for"],
    "AS-IR-06": [
        "test_revoking_the_refresh_token_ends_the_grant",
        "test_revoking_an_unknown_token_is_no_error",
    ],
    "JO-01": [
        "test_every_vector_is_refused_as_its_place_says",
        "test_foreign_algorithms_are_refused",
    ],
    "JO-02": [
        "test_every_vector_is_refused_as_its_place_says",
        "test_header_extensions_are_refused",
    ],
    "JO-03": ["test_every_vector_is_refused_as_its_place_says", "test_embedded_keys_are_refused"],
    "JO-05": [
        "test_other_spellings_of_a_part_are_refused",
        "test_json_that_is_not_json_is_refused",
    ],
    "JO-06": ["test_size_is_bounded_before_anything_is_decoded"],
    "JO-07": ["test_raw_signatures_give_the_expected_result"],
    "JO-08": ["test_wycheproof_jwe_opens_only_our_two_algorithms"],
    "JO-09": ["test_wycheproof_key_sets_give_the_expected_result", "test_unfit_keys_are_refused"],
    "UAE-01": ["test_a_proof_at_the_token_endpoint_binds_the_token", SUITE + "happy_flow"],
    "UAE-02": [SUITE + "happy_flow", "test_an_access_token_dies_after_ten_minutes"],
    "UAE-03": [
        SUITE + "ensure_signed_client_assertion_with_rs256_fails",
        "test_foreign_algorithms_are_refused",
        "test_client_secrets_are_refused",
    ],
    "UAE-04": ["test_key_sets_are_kept_for_twenty_minutes_at_most"],
    "UAE-05": ["test_a_type_of_another_role_is_refused", "test_a_bad_parameter_is_refused_at_par"],
    "UAE-06": ["test_jarm_is_refused_where_it_is_off"],
    "UAE-07": [SUITE + "discovery_end_point_verification"],
    "UAE-08": [
        SUITE + "australia_connectid_ensure_request_object_with_exp_over_10_fails",
        SUITE + "australia_connectid_ensure_request_object_with_nbf_over_15_fails",
        SUITE + "ensure_unsigned_request_at_par_endpoint_fails",
    ],
    "UAE-09": [
        SUITE + "par_test_array_as_audience_fails",
        "test_an_assertion_over_five_minutes_is_refused",
        "test_one_of_fifty_authenticates_with_an_assertion",
    ],
    "UAE-10": ["test_outer_parameters_are_never_used"],
    "UAE-11": ["test_each_answer_carries_the_callers_interaction_id"],
    "UAE-12": ["test_a_refresh_token_ends_with_its_consent"],
    "UAE-13": ["test_a_bad_parameter_is_refused_at_par"],
    "UAE-14": [
        "test_a_tpp_without_a_certificate_gets_nothing",
        "test_the_right_authority_with_the_wrong_organisation_is_refused",
    ],
    "UAE-15": [
        "test_a_bad_payment_consent_is_refused_at_par",
        "test_sealed_part_opens_with_the_banks_key_only",
    ],
    "UAE-16": [
        "test_an_answer_is_signed_where_accept_asks",
        "test_a_payee_question_must_be_signed",
        "test_a_message_is_sealed_for_one_tpp_and_signed_by_the_hub",
    ],
    "UAE-17": ["test_claims_of_a_signed_body_are_checked", "test_refusals_are_valid_too"],
    "UAE-18": [
        "test_a_payment_needs_a_key",
        "test_a_repetition_gets_the_first_answer_byte_for_byte",
    ],
    "UAE-19": [
        "test_do_fail_carries_the_banks_words",
        "test_another_clients_request_gets_the_error_page",
    ],
    "AS-TLS-01": ["test_old_protocols_and_suites_are_refused"],
    "AS-TLS-02": [
        SUITE + "ensure_holder_of_key_required",
        "test_openssl_sees_only_the_fapi_suites",
    ],
    "AS-TLS-03": [SUITE + "ensure_holder_of_key_required"],
    "AS-TLS-04": "Python's ssl offers neither compression nor 0-RTT, and TLS 1.2 renegotiation is off in every context "
    "(OP_NO_RENEGOTIATION); hub/edge/tls.py",
    "AS-TLS-05": "no endpoint of the Hub is for browsers but a bare redirect (test_a_tenant_may_send_browsers_on_itself); "
    "the pages are the bank's",
    "AS-TLS-06": [
        "test_client_certificates_that_must_be_refused",
        "test_client_certificates_are_demanded_of_the_same_authorities_under_every_name",
        "test_resumed_connection_still_knows_its_peer",
    ],
    "AS-TLS-07": "TLS never ends at a proxy: the Hub reads no certificate from a header",
    "AS-TLS-08": [
        "test_request_for_another_authority_is_misdirected",
        "test_metadata_agrees_with_the_routes",
    ],
    "AS-MD-03": [
        "test_the_key_set_holds_public_members_only",
        "test_a_key_that_left_stays_published_for_the_overlap",
    ],
    "AS-CA-12": [
        "test_a_block_holds_from_its_acknowledgement_on",
        "test_what_the_framework_takes_away_is_refused_within_the_bound",
    ],
    "AS-TK-13": [
        "test_access_tokens_may_be_jwts_that_still_die_at_once",
        "test_a_jwt_access_token_of_a_client_alone_names_the_client",
    ],
    "AS-DP-05": [
        "test_a_nonce_is_given_and_then_demanded",
        "test_a_bad_proof_does_not_burn_the_assertion",
    ],
    "AS-IR-05": [
        "test_a_consent_that_cannot_be_used_makes_its_tokens_inactive",
        "test_a_revoked_consents_tokens_are_inactive_at_every_worker_at_once",
    ],
    "AS-DCR-01": [
        "test_an_unfit_tpp_cannot_register",
        "test_a_certificate_whose_organisation_is_not_the_clients_cannot_register",
        "test_a_statement_signed_by_another_key_is_not_believed",
    ],
    "AS-DCR-02": "a TPP sends no metadata (test_a_registration_with_a_body_is_refused): all of it is the Trust Framework's "
    "own word",
    "AS-DCR-03": "POST /tpp-registration answers 204 (test_registration_is_answered_with_204_and_its_event_is_durable): the "
    "client_id is the framework's, and there is no secret and no registration token",
    "AS-DCR-04": "the standard has no GET, PUT or DELETE of a registration: the framework changes, the Hub follows "
    "(test_what_the_framework_takes_away_is_gone_after_the_next_round_and_can_come_back)",
    "AS-DCR-05": "client ids are given by the Trust Framework (UUIDs); subjects are 256-bit digests: "
    "test_userinfo_says_who_the_customer_is",
    "JO-04": [
        "test_nothing_else_is_a_client_assertion",
        "test_nothing_else_is_a_request_object",
        "test_nothing_else_is_a_proof",
        "test_no_jwt_is_a_code_a_refresh_token_or_an_access_token",
    ],
    "JO-10": [
        "test_unknown_kids_cannot_make_the_hub_hammer_the_key_store",
        "test_documents_over_the_bound_are_refused",
        "test_a_new_key_costs_one_fetch_however_many_wait",
        "test_a_revoked_key_is_not_given_out",
        "test_f11_a_removed_key_is_gone_after_one_interval",
        "test_f11_a_flood_of_unknown_keys_costs_one_fetch_in_thirty_seconds",
    ],
    "RS-01": [
        SUITE + "happy_flow",
        SUITE + "access_token_type_header_case_sensitivity",
        "test_a_token_that_does_not_fit_is_refused",
    ],
    "RS-02": ["test_a_token_that_does_not_fit_is_refused"],
    "RS-03": ["test_nothing_passes_after_an_acknowledged_revocation"],
    "RS-04": [
        "test_a_token_is_worth_nothing_with_another_tpps_certificate",
        "test_a_connection_without_a_certificate_is_refused",
        "test_a_token_that_does_not_fit_is_refused",
    ],
    "RS-05": [SUITE + "dpop_negative_tests", "test_a_proof_for_something_else_is_refused"],
    "RS-06": ["test_a_nonce_is_asked_for_at_resources_too"],
    "RS-07": ["test_a_token_without_the_scope_is_refused"],
    "RS-08": [
        "test_only_an_authorized_consent_opens_anything",
        "test_an_account_outside_the_consent_is_refused_whether_it_exists_or_not",
        "test_a_consent_of_another_client_gives_nothing",
    ],
    "RS-09": ["test_a_changed_or_forged_jwt_access_token_is_unknown"],
    "RS-10": [
        "test_an_interaction_id_is_made_where_none_is_sent",
        "test_a_malformed_interaction_id_is_refused",
    ],
    "RS-11": ["test_a_bad_parameter_is_refused"],
    "RS-12": [
        "test_claims_of_a_signed_body_are_checked",
        "test_a_signed_body_that_was_changed_is_refused",
        "test_a_key_is_not_for_another_payment",
    ],
    "RS-13": [
        "test_accept_of_neither_is_406_without_a_body",
        "test_a_patch_of_another_media_type_is_415",
        "test_an_unknown_path_is_404_and_another_method_405_without_bodies",
        "test_each_level_refuses_when_its_bucket_is_empty_and_fills_again",
        SUITE + "happy_flow",
    ],
    "RS-14": [
        "test_the_bank_is_told_who_calls_and_for_whom",
        "test_a_header_that_would_become_two_is_never_written",
        "test_framing_is_decided_here_alone",
        "test_odd_authority_is_refused",
    ],
    "RS-15": [
        "test_the_token_is_never_stored",
        "test_each_call_leaves_one_event_without_a_payload",
        "test_nothing_of_a_payload_is_kept_or_told",
    ],
    "CL-01": ["test_metadata_of_another_issuer_is_refused"],
    "CL-02": [
        "test_pkce_challenge_is_that_of_rfc_7636_appendix_b",
        "test_the_browser_carries_nothing_but_the_reference",
    ],
    "CL-03": ["test_token_requests_go_to_the_mtls_alias_and_are_authenticated"],
    "CL-04": ["test_a_pushed_request_holds_every_claim_that_the_profile_demands"],
    "CL-05": ["test_a_callback_is_believed_only_from_the_right_issuer_for_this_request"],
    "CL-06": "the sandbox's TPP is a sample that shows the wire; id_tokens are verified by the clients of others: "
    "test_certified_clients_complete_the_uae_profile",
    "CL-07": "the sandbox's TPP speaks the UAE profile only; JARM is verified by the clients of others: "
    "test_certified_clients_complete_mtls_and_dpop_plain_and_jarm",
    "CL-08": "the sandbox's TPP uses no DPoP; the aliases: test_token_requests_go_to_the_mtls_alias_and_are_authenticated; "
    "nonces and refresh: the clients of others",
    "CL-09": ["test_a_server_of_another_name_or_ca_is_refused"],
    "CL-10": "the Hub introspects nobody; signed answers of ours are verified by oauth4webapi: "
    "test_certified_clients_complete_mtls_and_dpop_plain_and_jarm",
}


@cache
def names():
    """Return the names of all tests of this repository."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        found |= set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))
    return found


def test_every_row_is_here():
    wanted = {f"{group}-{n:02}" for group, count in GROUPS.items() for n in range(1, count + 1)}
    assert set(ROWS) == wanted
    assert len(wanted) == 155


@pytest.mark.parametrize("row", sorted(ROWS))
def test_the_row_has_its_tests_or_a_reason(row):
    tests = ROWS[row]
    if isinstance(tests, str):
        assert len(tests) > 40
        assert not set(re.findall(r"test_\w+", tests)) - names()
    else:
        assert tests
        assert not set(tests) - names()


@pytest.mark.parametrize("attack", range(1, 12))
def test_each_attack_of_the_catalogue_has_a_test_of_its_number(attack):
    assert [name for name in names() if name.startswith(f"test_f{attack}_")]


CBUAE = [
    "discovery-end-point-verification",
    "happy-flow",
    "user-rejects-authentication",
    "ensure-authorization-request-without-state-success",
    "ensure-authorization-request-without-nonce-success",
    "ensure-authorization-request-with-64-char-nonce-success",
    "ensure-other-scope-order-succeeds",
    "test-claims-parameter-identity-claims",
    "access-token-type-header-case-sensitivity",
    "ensure-request-object-with-nbf-8-seconds-in-the-future-is-accepted",
    "ensure-different-nonce-inside-and-outside-request-object",
    "ensure-different-state-inside-and-outside-request-object",
    "ensure-authorization-request-with-long-nonce",
    "ensure-authorization-request-with-long-state",
    "ensure-request-object-without-exp-fails",
    "ensure-request-object-without-nbf-fails",
    "state-only-outside-request-object-not-used",
    "ensure-request-object-without-redirect-uri-fails",
    "ensure-expired-request-object-fails",
    "ensure-request-object-with-bad-aud-fails",
    "ensure-request-object-with-exp-over-60-fails",
    "ensure-request-object-with-nbf-over-60-fails",
    "ensure-signed-request-object-with-RS256-fails",
    "ensure-request-object-signature-algorithm-is-not-none",
    "ensure-request-object-with-invalid-signature-fails",
    "ensure-matching-key-in-authorization-request",
    "ensure-unsigned-request-at-par-endpoint-fails",
    "ensure-registered-redirect-uri",
    "ensure-unsigned-authorization-request-without-using-par-fails",
    "ensure-redirect-uri-in-authorization-request",
    "ensure-response-type-code-idtoken-fails",
    "ensure-response-type-token-fails",
    "ensure-client-id-in-token-endpoint",
    "ensure-holder-of-key-required",
    "ensure-authorization-code-is-bound-to-client",
    "attempt-reuse-authorization-code-after-one-second",
    "ensure-token-endpoint-fails-with-expired-auth-code",
    "ensure-signed-client-assertion-with-RS256-fails",
    "ensure-client-assertion-in-token-endpoint",
    "ensure-client-assertion-with-exp-is-5-minutes-in-past-fails",
    "ensure-client-assertion-with-wrong-aud-fails",
    "ensure-client-assertion-with-no-sub-fails",
    "refresh-token",
    "par-ensure-reused-request-uri-prior-to-auth-completion-succeeds",
    "par-attempt-reuse-request_uri",
    "par-attempt-to-use-expired-request_uri",
    "par-ensure-jwt-client-assertions-nbf-8-seconds-in-the-future-is-accepted",
    "par-ensure-jwt-client-assertions-nbf-over-60-seconds-in-the-future-fails",
    "par-attempt-to-use-request_uri-for-different-client",
    "par-authorization-request-containing-request_uri-form-param",
    "par-attempt-invalid-http-method",
    "par-ensure-pkce-required",
    "ensure-pkce-code-verifier-required",
    "incorrect-pkce-code-verifier-rejected",
    "par-plain-pkce-rejected",
    "par-authorization-request-containing-request_uri",
    "par-without-duplicate-parameters",
    "par-test-array-as-audience-fails",
    "par-test-par-endpoint-url-as-audience-fails",
    "par-test-token-endpoint-url-as-audience-fails",
]
"""The 60 modules that certify an authorization server for CBUAE, without the prefix ``fapi2-security-profile-final-``."""

DPOP = [
    "check-dpop-proof-nbf-exp",
    "ensure-dpopproof-with-iat-10seconds-before-succeeds",
    "ensure-dpopproof-with-iat-10seconds-after-succeeds",
    "ensure-mismatched-dpop-jkt-fails",
    "ensure-token-endpoint-fails-with-mismatched-dpop-proof-jkt",
    "ensure-token-endpoint-fails-with-mismatched-dpop-jkt",
    "ensure-dpopproof-at-par-endpoint-binding-success",
    "ensure-dpop-auth-code-binding-success",
    "dpop-negative-tests",
    "ensure-request-object-with-multiple-aud-succeeds",
]
"""Those of the general profile: DPoP, and what CBUAE is exempt from."""


@pytest.mark.parametrize("module", [*CBUAE, *DPOP])
def test_the_module_has_a_test_of_its_name_over_the_wire(module):
    assert len(CBUAE) == 60
    written = "".join(path.read_text() for path in (TESTS / "wire").glob("test_conformance_*.py"))
    name = SUITE + module.lower().replace("-", "_")
    assert len(re.findall(rf"^async def {name}\(", written, re.MULTILINE)) == 1
